"""Verbs on experiments: run one from a spec, fill MLflow."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from quanto.cli.command import Command, Result, workspace
from quanto.core.errors import ConfigError

if TYPE_CHECKING:
    from quanto.runtime.comparison import Row


def run_experiment(options: argparse.Namespace) -> Result:
    """Run an experiment from its spec through `dvc exp run` and fill MLflow from the result."""
    from quanto.runtime import experiments
    from quanto.runtime.after import after_run, summary

    folder = workspace(options)
    if options.sweep:
        return _run_sweep(folder, options)
    if not options.spec:
        raise ConfigError("name an experiment (--spec NAME or FILE) or a sweep (--sweep FILE)")
    overrides = experiments.experiment_overrides(folder, options.spec, options.set)
    revision = experiments.run_experiment(folder, overrides, here=options.here, name=options.name)
    facts = after_run(folder, revision) | {"revision": revision.label}
    return Result((f"DVC experiment {revision.label}", *summary(folder, facts)), facts)


def _run_sweep(folder: Path, options: argparse.Namespace) -> Result:
    from quanto.runtime.after import sync_revision
    from quanto.runtime.experiments import find_revision
    from quanto.runtime.sweep import aggregate, run_sweep

    path = Path(options.sweep)
    if not path.is_file():
        known = ", ".join(f"conf/sweep/{item.name}" for item in sorted((folder / "conf/sweep").glob("*.yaml")))
        raise ConfigError(f"there is no sweep {path}; this checkout has {known or 'none in conf/sweep'}")
    found = run_sweep(folder, path, options.jobs)
    for member in found:
        if member.commit is not None:
            sync_revision(find_revision(folder, member.name))
    summary = aggregate(folder, found, options.metric)
    lines = [f"{options.metric} of {len(found)} experiments:"]
    for row in sorted(summary["members"], key=lambda row: -(row.get("value") or float("-inf"))):
        verdicts = ", ".join(f"{tier}: {verdict}" for tier, verdict in (row.get("verdicts") or {}).items())
        value = row.get("value")
        lines.append(
            f"  {row['name']:<40} {row['status']:<8} {'' if value is None else format(value, '.4f'):>10}  {verdicts}{row['fault'] or ''}"
        )
    lines.append(f"best {summary['best']}, worst {summary['worst']}, median {summary['median']}")
    lines.append("the best of many trials looks better than it is: `quanto ledger seal` makes qualify count all of them")
    # A rejected candidate is a result; only a member that failed to run makes the sweep a failure.
    return Result(tuple(lines), summary, exit_code=int(bool(summary["failed"])))


# What `dvc exp show` prints otherwise: every digest of every dependency, every baseline's metrics.
SHOWN = r"^(Experiment|Created|State|name)$|(^|:)(sharpe|baseline_sharpe|annual_return|alpha|max_drawdown|turnover_annual)$"
HIDDEN = r"/|^requirements\.lock$|^(models|books|runtime)|(^|:)(sessions|status|reason|policy|risk_policy)$"


def experiments(options: argparse.Namespace) -> Result:
    """Show the DVC experiments with the columns that tell them apart: changed settings and the metrics that matter."""
    from quanto.runtime.dvc import dvc_output, run_dvc

    command = ["exp", "show", *(["--all-commits"] if options.all else [])]
    if options.json:
        return Result(value=json.loads(dvc_output(workspace(options), [*command, "--json"])))
    run_dvc(workspace(options), [*command, "--only-changed", "--hide-failed", "--keep", SHOWN, "--drop", HIDDEN])
    return Result()


def compare(options: argparse.Namespace) -> Result:
    """Show experiments side by side: configuration, metrics, regimes, gates."""
    from quanto.runtime.comparison import compare as side_by_side
    from quanto.runtime.experiments import find_revision
    from quanto.runtime.ledger import look_at

    folder = workspace(options)
    revisions = [find_revision(folder, name) for name in options.revision]
    rows = side_by_side(revisions)
    for revision in revisions:
        look_at(revision, "compare")
    value = [
        {
            "section": row.section,
            "name": row.name,
            "values": list(row.values),
            "best": row.best,
            "differences": list(row.differences),
            "intervals": list(row.intervals),
        }
        for row in rows
    ]
    if options.html:
        from quanto.runtime.reporting.versus import write_comparison

        path = write_comparison(revisions, Path(options.html))
        return Result((f"comparison: {path}",), {"path": str(path), "rows": value})
    return Result(tuple(_comparison_lines(rows, [item.label for item in revisions])), value)


def _comparison_lines(rows: list[Row], labels: list[str]) -> Iterator[str]:
    yield f"{'':<52}" + "".join(f"{label[:22]:>24}" for label in labels) + (f"{'difference':>16}" if len(labels) == 2 else "")
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            yield section
        cells = "".join(f"{_cell(value) + ('*' if index == row.best else ' '):>24}" for index, value in enumerate(row.values))
        difference = row.differences[1] if len(labels) == 2 and row.section in ("metrics", "regimes") else None
        yield f"  {row.name[:50]:<50}{cells}" + ("" if difference is None else f"{difference:>+16.4f}")
    yield "* the better value, where a metric has a direction"


def report(options: argparse.Namespace) -> Result:
    """Write the report of a revision as one HTML page; the look at its holdout is recorded."""
    from quanto.runtime.experiments import find_revision
    from quanto.runtime.ledger import look_at
    from quanto.runtime.reporting.page import write_page

    folder = workspace(options)
    revision = find_revision(folder, options.revision)
    path = write_page(folder, revision, Path(options.out) if options.out else None)
    look_at(revision, "report")
    return Result((f"report: {path}",), {"path": str(path), "experiment_id": revision.experiment_id()})


def _cell(value: object) -> str:
    if isinstance(value, float):
        return format(value, ".4f")
    return "" if value is None else str(value)[:22]


def mlflow_sync(options: argparse.Namespace) -> Result:
    """Fill MLflow from the files of revisions; twice changes nothing."""
    from quanto.runtime.after import mirror_line, sync_all, sync_revision
    from quanto.runtime.experiments import find_revision, known_revisions

    folder = workspace(options)
    if options.all:
        synced = sync_all(known_revisions(folder))
    else:
        synced = [
            (revision, sync_revision(revision)) for revision in (find_revision(folder, name) for name in options.revision or ["workspace"])
        ]
    done = [(revision.label, item) for revision, item in synced]
    lines = [f"{label}: {item.experiment_id[:12]} {'written' if item.written else 'unchanged'}" for label, item in done]
    lines.append(mirror_line(folder))
    return Result(
        tuple(lines),
        [{"revision": label, "experiment_id": item.experiment_id, "run": item.run_id, "written": item.written} for label, item in done],
    )


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sweep", metavar="FILE", help="a sweep of conf/sweep: run all of its members, resume what is missing, aggregate")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="members of a sweep that run at a time")
    parser.add_argument("--metric", default="sharpe", help="the metric that a sweep is summed up by (a path in metrics.json)")
    parser.add_argument("--spec", help="a name below conf/experiment, or a YAML file with the keys of an experiment spec")
    parser.add_argument("-S", "--set", action="append", default=[], metavar="KEY=VALUE", help="a further Hydra override; repeat at will")
    parser.add_argument("--name", help="what the DVC experiment is called (default: two words that DVC picks)")
    parser.add_argument("--here", action="store_true", help="run in the workspace instead of a temporary copy of the last commit")


def _sync_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("sync",), help="fill MLflow from the files")
    parser.add_argument("revision", nargs="*", help="ids, tags, commits or DVC experiments (default: the workspace)")
    parser.add_argument("--all", action="store_true", help="every revision that holds an evaluated experiment")


def _experiments_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="those of every commit, not only of the last one")


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("revision", nargs="+", help="ids, tags, branches, commits, DVC experiments or `workspace`")
    parser.add_argument("--html", metavar="FILE", help="write a page instead, with curves and intervals")


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("revision", nargs="?", default="workspace", help="id, tag, branch, commit, DVC experiment (default: the workspace)")
    parser.add_argument("--out", help="the page's path (default: below reports/html, ignored by git)")


COMMANDS = (
    Command(
        "report",
        "experiments",
        "write the report of an experiment as one HTML page",
        report,
        ("quanto report", "quanto report 'policy#candidate#1'"),
        _report_arguments,
    ),
    Command(
        "experiments",
        "experiments",
        "list the DVC experiments: changed settings and the metrics that matter",
        experiments,
        ("quanto experiments", "quanto experiments --all"),
        _experiments_arguments,
    ),
    Command(
        "compare",
        "experiments",
        "experiments side by side",
        compare,
        ("quanto compare workspace HEAD~1", "quanto compare a1b2c3 d4e5f6 --html comparison.html"),
        _compare_arguments,
    ),
    Command(
        "run-experiment",
        "workflow",
        "run an experiment from its spec (dvc exp run) and fill MLflow",
        run_experiment,
        (
            "quanto run-experiment --spec core_v1_regime_ppo",
            "quanto run-experiment --spec my_spec.yaml -S train.seeds=[1,2] --name two-seeds",
        ),
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
