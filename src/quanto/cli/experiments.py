"""Verbs on experiments: run one from a spec, fill MLflow."""

from __future__ import annotations

import argparse

from quanto.cli.command import Command, Result, workspace


def run_experiment(options: argparse.Namespace) -> Result:
    """Run an experiment from its spec through `dvc exp run` and fill MLflow from the result."""
    from quanto.runtime import experiments
    from quanto.runtime.after import after_run, summary

    folder = workspace(options)
    overrides = experiments.experiment_overrides(folder, options.spec, options.set)
    revision = experiments.run_experiment(folder, overrides, here=options.here)
    facts = after_run(folder, revision) | {"revision": revision.label}
    return Result((f"DVC experiment {revision.label}", *summary(folder, facts)), facts)


def mlflow_sync(options: argparse.Namespace) -> Result:
    """Fill MLflow from the files of revisions; twice changes nothing."""
    from quanto.runtime.after import sync_revision
    from quanto.runtime.experiments import find_revision, known_revisions

    folder = workspace(options)
    revisions = (
        list(known_revisions(folder)) if options.all else [find_revision(folder, name) for name in options.revision or ["workspace"]]
    )
    done = [(revision.label, sync_revision(revision)) for revision in revisions]
    lines = tuple(f"{label}: {item.experiment_id[:12]} {'written' if item.written else 'unchanged'}" for label, item in done)
    return Result(
        lines,
        [{"revision": label, "experiment_id": item.experiment_id, "run": item.run_id, "written": item.written} for label, item in done],
    )


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", required=True, help="a name below conf/experiment, or a YAML file with the keys of an experiment spec")
    parser.add_argument("-S", "--set", action="append", default=[], metavar="KEY=VALUE", help="a further Hydra override; repeat at will")
    parser.add_argument("--here", action="store_true", help="run in the workspace instead of a temporary copy of the last commit")


def _sync_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("sync",), help="fill MLflow from the files")
    parser.add_argument("revision", nargs="*", help="ids, tags, commits or DVC experiments (default: the workspace)")
    parser.add_argument("--all", action="store_true", help="every revision that holds an evaluated experiment")


COMMANDS = (
    Command(
        "run-experiment",
        "workflow",
        "run an experiment from its spec (dvc exp run) and fill MLflow",
        run_experiment,
        ("quanto run-experiment --spec core_v1_regime_ppo", "quanto run-experiment --spec my_spec.yaml -S train.seeds=[1,2]"),
        _run_arguments,
    ),
    Command(
        "mlflow",
        "experiments",
        "fill MLflow from the files of revisions",
        mlflow_sync,
        ("quanto mlflow sync", "quanto mlflow sync --all"),
        _sync_arguments,
    ),
)
