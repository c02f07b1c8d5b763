"""Verbs that judge an experiment of any revision again: regime slices, qualification, shadow replay, calibration."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quanto.cli.command import Command, Result, workspace
from quanto.core.config import load_section, read_yaml
from quanto.core.store import read_json, write_bytes

TRIAL = "reports/evaluation/trial.json"
SLICES = "reports/evaluation/regime_slices.json"
REPORT = "reports/promotion/qualification_report.json"


def run_regime_slices(options: argparse.Namespace) -> Result:
    """Evaluate an experiment again and show its regime slices; the look is recorded."""
    from quanto.runtime.compute import RuntimeConfig, open_executor
    from quanto.runtime.experiments import find_revision
    from quanto.runtime.ledger import look_at
    from quanto.runtime.materialise import EVALUATION_INPUTS, materialised
    from quanto.stages.eval import stage
    from quanto.stages.eval.config import EvalConfig

    revision = find_revision(workspace(options), options.experiment_id)
    with materialised(revision, EVALUATION_INPUTS) as folder:
        params = read_yaml(folder / "params.yaml")
        with open_executor(load_section("runtime", params.get("runtime"), RuntimeConfig)) as executor:
            stage.run(load_section("eval", params.get("eval"), EvalConfig), folder, executor)
        content = (folder / SLICES).read_bytes()
        slices = read_json(folder / SLICES)
    look_at(revision, "run-regime-slices")
    if options.out:
        write_bytes(Path(options.out), content)
    return Result(tuple(_slice_lines(slices)), slices)


def qualify_experiment(options: argparse.Namespace) -> Result:
    """Judge an experiment against a registry baseline, the champion, or another experiment."""
    from quanto.core.errors import UnknownNameError
    from quanto.core.registry import unknown_name
    from quanto.policy.baselines import BASELINES
    from quanto.runtime.experiments import experiment_refs, find_revision
    from quanto.runtime.ledger import look_at
    from quanto.runtime.materialise import QUALIFICATION_INPUTS, materialised

    folder = workspace(options)
    candidate = find_revision(folder, options.experiment_id)
    with materialised(candidate, QUALIFICATION_INPUTS) as place:
        section = _mapping(read_yaml(place / "params.yaml").get("qualify"))
        if options.baseline in BASELINES:
            section = {**section, "baseline": options.baseline}
        elif options.baseline not in (None, "champion"):
            try:
                other = find_revision(folder, options.baseline)
            except UnknownNameError as error:
                kind = "baseline (of the registry), `champion` or experiment"
                raise UnknownNameError(unknown_name(kind, options.baseline, [*BASELINES, "champion", *experiment_refs(folder)])) from error
            write_bytes(place / "reports/champion/trial.json", other.read(TRIAL))
            look_at(other, "qualify-experiment")
        if options.baseline is not None and options.baseline not in BASELINES:
            section = {**section, "baseline": "champion"}
        report = _qualify(section, place)
        content = (place / REPORT).read_bytes()
    look_at(candidate, "qualify-experiment")
    if options.out:
        write_bytes(Path(options.out), content)
    verdicts = _mapping(report.get("verdicts"))
    lines = [f"tier {tier}: {item['decision']}" + "".join(f"\n  {reason}" for reason in item["reasons"]) for tier, item in verdicts.items()]
    return Result(tuple(lines), report)


def _qualify(section: Mapping[str, Any], place: Path) -> dict[str, Any]:
    from concurrent.futures import ThreadPoolExecutor

    from quanto.stages.qualify import stage
    from quanto.stages.qualify.config import QualifyConfig

    (place / REPORT).unlink(missing_ok=True)  # a link to the workspace's own report must not be written through
    with ThreadPoolExecutor(1) as executor:
        stage.run(load_section("qualify", dict(section), QualifyConfig), place, executor)
    return _mapping(read_json(place / REPORT))


def _slice_lines(slices: object) -> list[str]:
    parts = _mapping(_mapping(slices).get("slices"))
    lines = [f"{'slice':<32}{'sessions':>9}{'episodes':>9}{'return':>9}{'volatility':>11}{'exposure':>9}"]
    for name, part in parts.items():
        own = _mapping(_mapping(part.get("books")).get("candidate"))
        cells = [own.get("annual_return"), own.get("annual_volatility"), own.get("exposure_mean")]
        shown = [f"{value:.1%}" if isinstance(value, float) else "n/a" for value in cells]
        lines.append(f"{name:<32}{part.get('sessions', 0):>9}{len(part.get('episodes', [])):>9}{shown[0]:>9}{shown[1]:>11}{shown[2]:>9}")
    return lines


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _slices_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--experiment-id", default="workspace", help="id or prefix, tag, branch, commit, DVC experiment (default: the workspace)"
    )
    parser.add_argument("--out", help="also write regime_slices.json to this path")


def _qualify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--experiment-id", required=True, help="the candidate: id or prefix, tag, branch, commit, DVC experiment, `workspace`"
    )
    parser.add_argument("--baseline", help="a baseline of the registry, `champion`, or another experiment (default: as configured)")
    parser.add_argument("--out", help="also write the qualification report to this path")


COMMANDS = (
    Command(
        "run-regime-slices",
        "workflow",
        "evaluate an experiment again and show its regime slices",
        run_regime_slices,
        ("quanto run-regime-slices --experiment-id 3f9c2a",),
        _slices_arguments,
    ),
    Command(
        "qualify-experiment",
        "workflow",
        "judge an experiment against a baseline or another experiment",
        qualify_experiment,
        ("quanto qualify-experiment --experiment-id 3f9c2a --baseline equal_weight_v1",),
        _qualify_arguments,
    ),
)
