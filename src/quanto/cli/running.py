"""Verbs that run a policy: shadow replay of any revision, paper trading, and the switch that stops it."""

from __future__ import annotations

import argparse
import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quanto.cli.command import Command, Result, workspace
from quanto.core.config import load_section, read_yaml
from quanto.core.errors import ConfigError
from quanto.core.store import data_root, write_bytes, write_json

if TYPE_CHECKING:  # a verb imports what it needs when it runs
    from quanto.execution.broker import BrokerAccount

PAPER = "conf/execution/paper.yaml"
DATA_HELP = "the revision whose canonical data and features are used, made by the same code"


def run_shadow(options: argparse.Namespace) -> Result:
    """Replay an experiment through orders, risk checks and the simulated broker; a second call resumes."""
    from quanto.runtime.experiments import find_revision
    from quanto.runtime.ledger import look_at
    from quanto.runtime.materialise import SHADOW_INPUTS, materialised, require_same_code
    from quanto.runtime.production import lineage_end
    from quanto.runtime.promotion import require_not_revoked
    from quanto.stages.shadow.config import ShadowConfig, newer_sessions
    from quanto.stages.shadow.stage import replay_into

    folder = workspace(options)
    revision = find_revision(folder, options.experiment_id)
    if revision.commit is not None:
        require_not_revoked(folder, revision.commit)
    require_same_code(revision)
    data = find_revision(folder, options.data) if options.data else None
    with materialised(revision, SHADOW_INPUTS, data) as place:
        dates = {key: value for key in ("start_date", "end_date") if (value := getattr(options, key))}
        config = load_section("shadow", {**_section(place, "shadow"), **dates}, ShadowConfig)
        if data is not None:
            config = newer_sessions(config, lineage_end(revision))
        identity = revision.experiment_id()[:12]
        name = f"{config.start_date or 'first'}_{config.end_date or 'last'}"
        out = Path(options.out) if options.out else data_root() / "shadow" / identity / name
        metrics = replay_into(out, config, place, reset=options.reset)
    look_at(revision, "run-shadow")
    lines = [f"shadow {metrics['status']}: {metrics.get('sessions', 0)} sessions, {metrics.get('orders_submitted', 0)} orders"]
    lines += [f"  {key}: {metrics[key]}" for key in ("reason", "nav_usd", "total_return", "halts") if key in metrics]
    lines.append(f"journal, metrics and sessions: {out}")
    return Result(tuple(lines), metrics, exit_code=int(metrics["status"] == "blocked"))


def stress(options: argparse.Namespace) -> Result:
    """Replay a policy on shocked markets: features, decisions, risk checks and orders are computed anew."""
    from quanto.runtime.experiments import find_revision
    from quanto.runtime.ledger import look_at
    from quanto.runtime.materialise import EVALUATION_INPUTS, materialised, require_same_code
    from quanto.runtime.stress import stress as replay_shocked

    revision = find_revision(workspace(options), options.experiment_id)
    require_same_code(revision)
    with materialised(revision, EVALUATION_INPUTS) as place:
        found = replay_shocked(place)
    look_at(revision, "stress")
    out = Path(options.out) if options.out else data_root() / "shadow" / revision.experiment_id()[:12] / "stress.json"
    write_json(out, found)
    scenarios: Any = found["scenarios"]
    lines = [
        f"{name}: worst session {item['worst_session_return']:.1%}, drawdown {item['max_drawdown']:.1%}, "
        f"{'within the gates' if item['passed'] else 'BEYOND THE GATES'}{', halted: ' + item['halted'] if item['halted'] else ''}"
        for name, item in scenarios.items()
    ]
    return Result((*lines, f"written: {out}"), found, exit_code=int(not found["passed"]))


def run_paper(options: argparse.Namespace) -> Result:
    """Trade today's session of a promoted policy on the paper account, once."""
    from quanto.execution.clock import WallClock
    from quanto.execution.paper import PaperConfig
    from quanto.runtime.experiments import find_revision
    from quanto.runtime.materialise import SHADOW_INPUTS, materialised, require_same_code
    from quanto.runtime.promotion import require_not_revoked
    from quanto.stages.shadow.config import ShadowConfig
    from quanto.stages.shadow.paper import run_paper as run

    folder = workspace(options)
    revision = find_revision(folder, options.experiment_id)
    if revision.commit is None:
        raise ConfigError("paper trading runs a commit, not the workspace; name a promotion tag (policy#candidate#N)")
    require_not_revoked(folder, revision.commit)
    paper = load_section("paper", read_yaml(folder / (options.config or PAPER)), PaperConfig)
    require_same_code(revision)
    data = find_revision(folder, options.data) if options.data else None
    with materialised(revision, SHADOW_INPUTS, data) as place:
        done = run(load_section("shadow", _section(place, "shadow"), ShadowConfig), paper, place, WallClock())
    value = {"code": done.code.name, "message": done.message, "session": done.session}
    return Result((f"{done.code.name}: {done.message}",), value, exit_code=int(done.code))


def risk(options: argparse.Namespace) -> Result:
    """Show, throw or lift the halt of a paper account; lifting is audited in its journal."""
    from quanto.execution.account import halt_reason, kill_reason, resume_halt, throw_kill_switch
    from quanto.execution.clock import WallClock

    folder = data_root() / "paper" / options.account
    if options.action == "status":
        switch, halted = kill_reason(folder), halt_reason(folder)
        lines = (f"kill switch: {switch or 'not thrown'}", f"halt: {halted or 'none'}")
        return Result(lines, {"kill_switch": switch, "halt": halted}, exit_code=int(bool(switch or halted)))
    if options.action == "halt":
        throw_kill_switch(folder, options.reason or "")
        return Result(("the kill switch is thrown; nothing trades until `quanto risk resume`",), {"halted": True})
    account = _broker_account(options) if options.adopt else None
    lifted = resume_halt(folder, options.reason or "", options.operator or getpass.getuser(), WallClock(), account)
    return Result((f"lifted: {lifted}",), {"lifted": lifted})


def _broker_account(options: argparse.Namespace) -> BrokerAccount:
    from quanto.execution.brokers.alpaca import AlpacaBroker
    from quanto.execution.clock import WallClock
    from quanto.execution.paper import PaperConfig

    paper = load_section("paper", read_yaml(workspace(options) / (options.config or PAPER)), PaperConfig)
    if paper.account != options.account:
        raise ConfigError(
            f"the configuration is of the account {paper.account}, not {options.account}; name both with --config and --account"
        )
    return AlpacaBroker(paper.broker, WallClock()).account()


def calibrate_gates(options: argparse.Namespace) -> Result:
    """Measure how often the gates promote noise, and how often they find an edge, on simulated markets."""
    from quanto.runtime.calibration import calibrate

    found = calibrate(workspace(options), options.markets, options.power_markets)
    lines = ["reports/promotion/calibration.json is written; `dvc repro`, then commit both"]
    for digest, measured in found.items():
        rates: Any = measured.get("false_promotion_pooled", {}) if isinstance(measured, dict) else {}
        lines += [f"gates {digest[:12]}: noise gets tier {tier} {share:.1%} of the time" for tier, share in rates.items()]
    if options.out:
        write_bytes(Path(options.out), (workspace(options) / "reports/promotion/calibration.json").read_bytes())
    return Result(tuple(lines), found)


def _section(place: Path, name: str) -> dict[str, Any]:
    section = read_yaml(place / "params.yaml").get(name)
    return section if isinstance(section, dict) else {}


def _shadow_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--experiment-id", default="workspace", help="id or prefix, tag, branch, commit, DVC experiment (default: the workspace)"
    )
    parser.add_argument("--replay", action="store_true", help="replay past sessions (the only mode of this version)")
    parser.add_argument("--data", help=f"{DATA_HELP} (default: its own data); only sessions newer than its own are replayed")
    parser.add_argument("--start-date", help="first session (default: the first of the test window)")
    parser.add_argument("--end-date", help="last session (default: the last of the test window)")
    parser.add_argument("--reset", action="store_true", help="begin anew instead of resuming the journal")
    parser.add_argument("--out", help="folder of journal, metrics and sessions (default: below the data root)")


def _stress_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--experiment-id", default="workspace", help="id or prefix, tag, branch, commit, DVC experiment (default: the workspace)"
    )
    parser.add_argument("--out", help="where the evidence is written, JSON (default: below the data root)")


def _paper_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--experiment-id", required=True, help="a promotion tag, id, branch or commit")
    parser.add_argument("--data", help=f"{DATA_HELP}, e.g. `workspace` (default: its own data, which end where it was trained)")
    parser.add_argument("--config", help=f"the account's configuration (default: {PAPER})")


def _risk_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("status", "halt", "resume"))
    parser.add_argument("--account", default="paper", help="the account of conf/execution/paper.yaml")
    parser.add_argument("--reason", help="why; needed to halt and to resume")
    parser.add_argument(
        "--adopt",
        action="store_true",
        help="resume from what the broker's account holds now; the differences are journalled as adjustments",
    )
    parser.add_argument("--config", help=f"the account's configuration, for --adopt (default: {PAPER})")
    parser.add_argument("--operator", help="who resumes (default: the user that runs the command)")


def _calibration_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--markets", type=int, default=2000, help="simulated markets per null family")
    parser.add_argument("--power-markets", type=int, default=1000, help="simulated markets per planted cell")
    parser.add_argument("--out", help="also write the result to this path")


COMMANDS = (
    Command(
        "run-shadow",
        "workflow",
        "replay an experiment through orders, risk checks and the simulated broker",
        run_shadow,
        ("quanto run-shadow --experiment-id 3f9c2a --replay --start-date 2007-01-03 --end-date 2008-12-31",),
        _shadow_arguments,
    ),
    Command(
        "stress",
        "workflow",
        "replay an experiment on shocked markets, against the gates of shadow.stress",
        stress,
        ("quanto stress --experiment-id 3f9c2a",),
        _stress_arguments,
    ),
    Command(
        "run-paper",
        "execution",
        "trade today's session on the paper account",
        run_paper,
        ("quanto run-paper --experiment-id 'policy#candidate#2'",),
        _paper_arguments,
    ),
    Command(
        "risk",
        "execution",
        "show, throw or lift the halt of a paper account",
        risk,
        ("quanto risk status", 'quanto risk halt --reason "vendor outage"', 'quanto risk resume --reason "positions reconciled"'),
        _risk_arguments,
    ),
    Command(
        "calibrate-gates",
        "governance",
        "measure the gates' own error rates",
        calibrate_gates,
        ("quanto calibrate-gates",),
        _calibration_arguments,
    ),
)
