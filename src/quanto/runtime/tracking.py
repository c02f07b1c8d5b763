"""MLflow, filled from the files of a revision: the one writer. Deleting MLflow loses nothing that matters.

One parent run per experiment id with parameters, metrics, datasets, reports and the policy; one child run per seed with
its training curves over environment steps. Syncing twice changes nothing: a run carries the digest of what it was
filled from. Promoted experiments are versions of the registered model `policy`; its aliases mirror the git tags.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from quanto.core.digest import digest_bytes, digest_value
from quanto.core.errors import DataError, MissingDataError
from quanto.core.manifest import Manifest, outputs_digest
from quanto.core.store import data_root
from quanto.runtime.revisions import Revision

EXPERIMENT = "quanto"
MODEL = "policy"
MODELS = "models"
CURVES = "reports/training/curves.csv"
METRICS = {"evaluation": "reports/evaluation/metrics.json", "shadow": "reports/shadow/metrics.json"}
REPORTS = (
    "reports/evaluation/metrics.json",
    "reports/evaluation/regime_slices.json",
    "reports/promotion/qualification_report.json",
    "reports/promotion/promotion_record.json",
    "reports/promotion/MODEL_CARD.md",
    "reports/features/leak_proof.json",
    "reports/canonical/canonical_report.json",
)
DATASETS = {"raw": ("ingest", "data/raw"), "canonical": ("canonical", "data/canonical"), "features": ("features", "data/features")}
DIRTY = "quanto.dirty"
PLACE = frozenset({DIRTY, "quanto.commit", "quanto.revision"})  # where an experiment was read from, no part of what it is
FINISHED = "FINISHED"
METRIC_BATCH = 1000  # the most that a server takes in one request
MOST_RUNS = 50_000  # what a server returns at the most
LABEL_BATCH = 100  # as above
PARAM_LENGTH = 6000
DATASET_DIGEST = 36  # the longest digest that MLflow takes; the whole one is a tag
TIMESTAMP_MS = 0  # when a number was logged says nothing about it


@dataclass(frozen=True)
class Synced:
    """What a sync did for one experiment: its id, the MLflow run, and whether anything was written."""

    experiment_id: str
    run_id: str
    written: bool


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI, else the sqlite database below the data root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{data_root() / 'mlflow' / 'mlflow.db'}"


def open_client() -> tuple[MlflowClient, str]:
    """Return a client and the id of Quanto's MLflow experiment, creating database and experiment once, under a lock.

    Raises
    ------
    DataError
        If the tracking store does not answer; MLflow's own words say why.
    """
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # the migrations of a new database are no news
    folder = data_root() / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    uri = tracking_uri()
    # The first use of a database runs migrations, and two processes doing so at once crash.
    with FileLock(folder / "create.lock"):
        try:
            client = MlflowClient(tracking_uri=uri)
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is not None:
                return client, found.experiment_id
            local = uri.startswith("sqlite")
            location = (folder / "artifacts").as_uri() if local else None
            try:
                return client, client.create_experiment(EXPERIMENT, artifact_location=location)
            except MlflowException:
                # The lock is this data root's: another desk may have made it on the same server in this moment.
                made = client.get_experiment_by_name(EXPERIMENT)
                if made is None:
                    raise
                return client, made.experiment_id
        except MlflowException as error:
            raise DataError(f"MLflow at {uri.split('@')[-1]} does not answer: {error}") from error


def _create_model(client: MlflowClient) -> None:
    try:
        client.create_registered_model(MODEL, description="Promoted policies; the signed git tags are the record, this mirrors them.")
    except MlflowException:
        if not client.search_registered_models(filter_string=f"name = '{MODEL}'"):
            raise  # another desk did not make it either


def sync(revision: Revision, tags: Mapping[str, str], extras: Callable[[], Mapping[str, bytes]] = dict) -> Synced:
    """Write one revision's experiment into MLflow, unless an equal one stands there already.

    `extras` makes further artefacts by name (the report page) from the same files; it is called only to write. Where a
    run was filled from does not count as a difference, but a commit replaces a dirty workspace.

    Raises
    ------
    MissingDataError
        If the pipeline has not run to eval in this revision.
    """
    manifests = revision.manifests()
    identity = revision.experiment_id()
    curves = revision.open_tracked(CURVES)
    artefacts = {path.removeprefix("reports/"): revision.read(path) for path in REPORTS if revision.exists(path)}
    artefacts |= {path: revision.open_tracked(path) for path in _policy_files(manifests)}
    content = digest_value(
        {
            "artefacts": {name: digest_bytes(body) for name, body in artefacts.items()},
            "curves": digest_bytes(curves),
            "tags": {key: value for key, value in tags.items() if key not in PLACE},
            "manifests": {stage: manifest.digest() for stage, manifest in manifests.items()},
        }
    )
    client, experiment = open_client()
    with FileLock(data_root() / "mlflow" / "sync.lock"):
        found = _find(client, experiment, identity)
        if found is not None and _is_current(found, content, tags):
            return Synced(identity, found.info.run_id, written=False)
        name = tags.get("quanto.name", identity[:12])
        parent = found or client.create_run(experiment, run_name=f"{name} {identity[:8]}")
        _write_parent(client, parent.info.run_id, revision, manifests, identity, tags)
        _write_artefacts(client, parent.info.run_id, {**artefacts, **extras()})
        _write_seeds(client, experiment, parent.info.run_id, name, curves)
        client.set_tag(parent.info.run_id, "quanto.content", content)
        client.set_terminated(parent.info.run_id)
    return Synced(identity, parent.info.run_id, written=True)


def _is_current(run: Run, content: str, tags: Mapping[str, str]) -> bool:
    cleaner = run.data.tags.get(DIRTY) == "true" and tags.get(DIRTY) != "true"
    return run.data.tags.get("quanto.content") == content and not cleaner


def tracked_trials() -> list[str]:
    """Return the trial ids of all runs that MLflow holds; empty where there is no store yet."""
    if tracking_uri().startswith("sqlite") and not (data_root() / "mlflow" / "mlflow.db").is_file():
        return []
    client, experiment = open_client()
    runs = client.search_runs([experiment], filter_string="tags.`quanto.kind` = 'experiment'", max_results=MOST_RUNS)
    return sorted({run.data.tags["quanto.trial_id"] for run in runs if "quanto.trial_id" in run.data.tags})


def mirror_promotions(promoted: Mapping[str, str]) -> dict[str, str]:
    """Make the aliases of the registered model say what the tags say: `promoted` maps each tier to an experiment id.

    Returns the version of each tier. A tier that is not named loses its alias; doing it twice changes nothing.

    Raises
    ------
    MissingDataError
        If MLflow holds no run of a promoted experiment; names all of them.
    """
    client, experiment = open_client()
    with FileLock(data_root() / "mlflow" / "sync.lock"):
        runs = {identity: _find(client, experiment, identity) for identity in sorted(set(promoted.values()))}
        missing = [identity[:12] for identity, run in runs.items() if run is None]
        if missing:
            raise MissingDataError(f"MLflow holds no run of {', '.join(missing)}; run `quanto mlflow sync {missing[0]}` first")
        if not client.search_registered_models(filter_string=f"name = '{MODEL}'"):
            if not promoted:
                return {}
            _create_model(client)
        versions = {run.info.run_id: _version(client, run, identity) for identity, run in runs.items() if run is not None}
        wanted = {tier: versions[run.info.run_id] for tier, identity in promoted.items() if (run := runs[identity]) is not None}
        standing = {tier: str(version) for tier, version in client.get_registered_model(MODEL).aliases.items()}
        for tier in sorted(standing.keys() - wanted.keys()):
            client.delete_registered_model_alias(MODEL, tier)
        for tier, version in sorted(wanted.items()):
            if standing.get(tier) != version:
                client.set_registered_model_alias(MODEL, tier, version)
    return wanted


def _version(client: MlflowClient, run: Run, identity: str) -> str:
    found = client.search_model_versions(f"name = '{MODEL}' and run_id = '{run.info.run_id}'")
    if found:
        return str(found[0].version)
    source = f"{run.info.artifact_uri}/{MODELS}"
    made = client.create_model_version(MODEL, source, run_id=run.info.run_id, tags={"quanto.experiment_id": identity})
    return str(made.version)


def _policy_files(manifests: Mapping[str, Manifest]) -> list[str]:
    """Return the files of the policy artefact, as the train stage's manifest lists them."""
    return [name for name in manifests["train"].outputs if name.startswith(f"{MODELS}/")] if "train" in manifests else []


def _find(client: MlflowClient, experiment: str, identity: str) -> Run | None:
    query = f"tags.`quanto.experiment_id` = '{identity}' and tags.`quanto.kind` = 'experiment'"
    runs = client.search_runs([experiment], filter_string=query, max_results=1)
    return runs[0] if runs else None


def _write_parent(
    client: MlflowClient, run: str, revision: Revision, manifests: Mapping[str, Manifest], identity: str, tags: Mapping[str, str]
) -> None:
    params = {f"{stage}.{key}": value for stage, item in manifests.items() for key, value in _flat(item.config)}
    metrics: dict[str, float] = {}
    for prefix, path in METRICS.items():
        if revision.exists(path):
            metrics |= {f"{prefix}.{key}": value for key, value in _numbers(revision.read_json(path))}
    labels = {"quanto.experiment_id": identity, "quanto.kind": "experiment", **tags}
    for name, (stage, path) in DATASETS.items():
        if stage in manifests:
            labels[f"quanto.data.{name}"] = outputs_digest(manifests[stage], path)
    client.log_inputs(
        run, [_dataset(name, DATASETS[name][1], labels[f"quanto.data.{name}"]) for name in DATASETS if f"quanto.data.{name}" in labels]
    )
    known = client.get_run(run).data.params
    _log(client, run, metrics=[Metric(key, value, TIMESTAMP_MS, 0) for key, value in sorted(metrics.items())])
    # A parameter cannot be changed in MLflow; an experiment id fixes all of ingest to eval, so only new ones are left.
    _log(client, run, params=[Param(key, str(value)[:PARAM_LENGTH]) for key, value in sorted(params.items()) if key not in known])
    _log(client, run, tags=[RunTag(key, value) for key, value in sorted(labels.items())])


def _dataset(name: str, path: str, digest: str) -> DatasetInput:
    source = json.dumps({"path": path, "sha256": digest}, sort_keys=True)
    return DatasetInput(Dataset(name, digest[:DATASET_DIGEST], "dvc", source), [InputTag("mlflow.data.context", path)])


def _write_seeds(client: MlflowClient, experiment: str, parent: str, name: str, curves: bytes) -> None:
    rows = list(csv.DictReader(io.StringIO(curves.decode())))
    for seed in sorted({row["seed"] for row in rows}, key=int):
        query = f"tags.`mlflow.parentRunId` = '{parent}' and tags.`quanto.seed` = '{seed}'"
        existing = client.search_runs([experiment], filter_string=query)
        if any(run.info.status == FINISHED for run in existing):
            continue
        for run in existing:
            client.delete_run(run.info.run_id)  # a sync that was killed left it half filled
        tags = {"mlflow.parentRunId": parent, "quanto.kind": "seed", "quanto.seed": seed}
        child = client.create_run(experiment, run_name=f"{name} seed {seed}", tags=tags)
        _log(client, child.info.run_id, metrics=list(_points(rows, seed)))
        client.set_terminated(child.info.run_id)


def _points(rows: Sequence[Mapping[str, str]], seed: str) -> Iterator[Metric]:
    for row in rows:
        for column, text in row.items():
            if row["seed"] == seed and column not in ("seed", "step") and text and math.isfinite(float(text)):
                yield Metric(column, float(text), TIMESTAMP_MS, int(float(row["step"])))


def _write_artefacts(client: MlflowClient, run: str, artefacts: Mapping[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, body in sorted(artefacts.items()):
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
        client.log_artifacts(run, folder)


def _log(client: MlflowClient, run: str, metrics: Sequence[Metric] = (), params: Sequence[Param] = (), tags: Sequence[RunTag] = ()) -> None:
    for start in range(0, len(metrics), METRIC_BATCH):
        client.log_batch(run, metrics=metrics[start : start + METRIC_BATCH])
    for start in range(0, max(len(params), len(tags)), LABEL_BATCH):
        part = slice(start, start + LABEL_BATCH)
        client.log_batch(run, params=params[part], tags=tags[part])


def _flat(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _numbers(value: object) -> Iterator[tuple[str, float]]:
    for key, item in _flat(value):
        if isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item):
            yield key, float(item)
