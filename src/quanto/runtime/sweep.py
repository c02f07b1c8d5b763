"""Sweeps: many experiments from one file, each a DVC experiment; a failing member stops nothing, a second call resumes."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field
from tqdm import tqdm

from quanto.core.config import Section, load_section, read_yaml
from quanto.core.digest import digest_value
from quanto.core.errors import QuantoError
from quanto.runtime.composition import check_params, compose_params, literal
from quanto.runtime.dvc import run_dvc
from quanto.runtime.experiments import experiment_refs
from quanto.runtime.git import Git
from quanto.runtime.revisions import Revision

METRICS = "reports/evaluation/metrics.json"
RECORD = "reports/promotion/promotion_record.json"


class SweepConfig(Section):
    """What a sweep file says: grid x choice x seeds on top of one experiment."""

    experiment: str
    grid: dict[str, tuple[bool | int | float | str | None, ...]] = Field(default_factory=dict)
    choice: tuple[dict[str, bool | int | float | str | None], ...] = ()
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Member:
    """One experiment of a sweep: its DVC name, its overrides, and how it went (`done`, `failed`, `waiting`)."""

    name: str
    overrides: tuple[str, ...]
    status: str = "waiting"
    fault: str | None = None
    commit: str | None = None


def load_sweep(path: Path) -> SweepConfig:
    """Return the sweep of a file; raises ConfigError with all faults, MissingDataError if there is no file."""
    return load_section(path.name, read_yaml(path), SweepConfig)


def members(name: str, sweep: SweepConfig, baseline: str) -> list[Member]:
    """Return the members in a fixed order; names are unique for a set of overrides and a baseline commit."""
    grid = [[(key, value) for value in values] for key, values in sorted(sweep.grid.items())]
    seeds: Sequence[Sequence[tuple[str, object]]] = [[("seed", seed)] for seed in sweep.seeds] or [[]]
    found: list[Member] = []
    for point, chosen, seed in itertools.product(itertools.product(*grid), sweep.choice or ({},), seeds):
        settings = [*point, *sorted(chosen.items()), *seed]
        overrides = (f"experiment={sweep.experiment}", *(f"{key}={literal(value)}" for key, value in settings))
        found.append(Member(f"{name}-{digest_value([baseline, *overrides])[:8]}", overrides))
    return found


def run_sweep(workspace: Path, path: Path, jobs: int) -> list[Member]:
    """Run every member that has no result yet, `jobs` at a time, and return all of them with their status.

    All members are composed and checked before the first one runs.

    Raises
    ------
    ConfigError
        If a member does not compose or its sections have faults.
    """
    baseline = Git(workspace).text("rev-parse", "HEAD")
    planned = members(path.stem, load_sweep(path), baseline)
    for member in planned:
        check_params(compose_params(workspace, list(member.overrides)))
    done = experiment_refs(workspace)
    waiting = [member for member in planned if member.name not in done]
    faults: dict[str, str] = {}
    with ThreadPoolExecutor(jobs) as pool:
        runs = {member.name: pool.submit(_attempt, _runner(workspace, member)) for member in waiting}
        for name, run in tqdm(runs.items(), desc=path.stem, unit="experiment", disable=None):
            fault = run.result()
            if fault is not None:
                faults[name] = fault
    done = experiment_refs(workspace)
    return [
        Member(member.name, member.overrides, "done" if member.name in done else "failed", faults.get(member.name), done.get(member.name))
        for member in planned
    ]


def aggregate(workspace: Path, found: Iterable[Member], metric: str) -> dict[str, Any]:
    """Return best, worst and distribution of a metric over the members, their verdicts, and who failed."""
    rows: list[dict[str, Any]] = []
    for member in found:
        row: dict[str, Any] = {"name": member.name, "status": member.status, "overrides": list(member.overrides), "fault": member.fault}
        if member.commit is not None:
            revision = Revision(workspace, member.commit, member.name)
            row["value"] = _at(revision.read_json(METRICS), metric)
            row["verdicts"] = _at(revision.read_json(RECORD), "verdicts") if revision.exists(RECORD) else None
            row["experiment_id"] = revision.experiment_id()
        rows.append(row)
    values = sorted(row["value"] for row in rows if isinstance(row.get("value"), int | float))
    ranked = sorted((row for row in rows if isinstance(row.get("value"), int | float)), key=lambda row: (-row["value"], row["name"]))
    return {
        "metric": metric,
        "members": rows,
        "best": ranked[0]["name"] if ranked else None,
        "worst": ranked[-1]["name"] if ranked else None,
        "median": statistics.median(values) if values else None,
        "mean": statistics.fmean(values) if values else None,
        "failed": [row["name"] for row in rows if row["status"] == "failed"],
    }


def _runner(workspace: Path, member: Member) -> Callable[[], None]:
    settings = [item for override in member.overrides for item in ("-S", override)]
    return lambda: run_dvc(workspace, ["exp", "run", "--temp", "--name", member.name, *settings])


def _attempt(run: Callable[[], None]) -> str | None:
    try:
        run()
    except QuantoError as error:
        return str(error)
    return None


def _at(value: object, path: str) -> object:
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value
