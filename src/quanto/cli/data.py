"""Verbs on data: fill the landing store, rebuild the canonical data, audit features for look-ahead."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from quanto.cli.command import Command, Result, workspace
from quanto.core.config import load_section
from quanto.core.errors import ConfigError
from quanto.core.store import read_json


def ingest(options: argparse.Namespace) -> Result:
    """Fetch from vendors into the landing store and report; no tracked path changes."""
    from quanto.runtime.compute import RuntimeConfig, open_executor
    from quanto.stages.ingest import stage
    from quanto.stages.ingest.config import IngestConfig
    from quanto.stages.ingest.router import plan_rows, rate_budget

    folder = workspace(options)
    params = _params(folder, options)
    config = load_section("ingest", params["ingest"], IngestConfig)
    if options.dry_run:
        plan = plan_rows(config, folder)
        lines = tuple(
            f"{row['vendor']:<20} {row['domain']:<18} {row['shard']:<24} {row['start']} to {row['end']} {row['requests']:>6} requests"
            for row in plan
        )
        budget = rate_budget(config, plan)
        rates = tuple(
            f"{item['vendor']:<20} about {item['requests']} requests; {item['requests_per_minute']:g} a minute are allowed: "
            f"{item['minutes']:g} minutes or more"
            for item in budget
        )
        return Result((*lines, *rates, f"{len(plan)} shards; nothing was fetched"), {"plan": plan, "budget": budget})
    with tempfile.TemporaryDirectory(prefix="quanto-ingest-") as temporary:
        scratch = _scratch(folder, Path(temporary))
        with open_executor(load_section("runtime", params["runtime"], RuntimeConfig)) as executor:
            stage.run(config, scratch, executor)
        report = read_json(scratch / "reports/ingest/ingest_report.json")
        if options.out:
            for name in ("data", "reports"):
                shutil.copytree(scratch / name, Path(options.out) / name, dirs_exist_ok=True)
    return Result(("the landing store is filled; `dvc repro` builds from it",), report)


def build_canonical_datasets(options: argparse.Namespace) -> Result:
    """Build the canonical data (and what they need) through DVC."""
    from quanto.core.config import read_yaml
    from quanto.runtime.composition import check_params, compose_params
    from quanto.runtime.dvc import run_dvc

    folder = workspace(options)
    params = read_yaml(folder / "params.yaml")
    asked = {"start_date": options.start_date, "end_date": options.end_date}
    changed = [f"{key}='{value}'" for key, value in asked.items() if value is not None and value != str(params.get(key))]
    if changed:
        check_params(compose_params(folder, changed))
        run_dvc(folder, ["exp", "run", *[item for change in changed for item in ("-S", change)], "canonical"])
    else:
        run_dvc(folder, ["repro", "canonical"])
    report = read_json(folder / "reports/canonical/canonical_report.json")
    return Result(("data/canonical is built; reports/canonical/canonical_report.json says from what",), report)


def audit_leakage(options: argparse.Namespace) -> Result:
    """Prove every session of the configured feature sets free of look-ahead."""
    from quanto.runtime.compute import RuntimeConfig, open_executor
    from quanto.stages.features.config import FeaturesConfig
    from quanto.stages.features.stage import audit_leakage as audit

    folder = workspace(options)
    params = _params(folder, options)
    config = load_section("features", params["features"], FeaturesConfig)
    with open_executor(load_section("runtime", params["runtime"], RuntimeConfig)) as executor:
        proof = audit(config, folder, executor, every_session=True)
    passed = bool(proof.get("passed")) if isinstance(proof, dict) else False
    return Result(
        ("no look-ahead was found" if passed else "look-ahead was found; --json names the columns",), proof, exit_code=int(not passed)
    )


def _params(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    from quanto.runtime.composition import compose_params

    overrides = list(options.set)
    replaced: dict[str, Path] = {}
    file = Path(options.config) if getattr(options, "config", None) else None
    if file is not None:
        if not file.is_file():
            raise ConfigError(
                f"{file} does not exist; conf/ingest has {', '.join(sorted(item.name for item in (folder / 'conf/ingest').glob('*.yaml')))}"
            )
        replaced["ingest"] = file
    params = compose_params(folder, overrides, replaced)
    section = params["ingest"]
    if getattr(options, "mode", None):
        section["mode"] = options.mode
    if getattr(options, "offline", False):
        section["offline"] = True
    if getattr(options, "domain", None):
        kept = [{**vendor, "domains": [options.domain]} for vendor in section["vendors"] if options.domain in vendor["domains"]]
        if not kept:
            raise ConfigError(f"no configured vendor serves the domain {options.domain}")
        section["vendors"] = kept
        section["series"] = section.get("series", []) if options.domain == "index_level" else []
    return params


def _scratch(folder: Path, temporary: Path) -> Path:
    """Return a folder in which vendors find the checkout's files and the stage writes without touching a tracked path."""
    for item in folder.iterdir():
        if item.name not in ("data", "reports", "models", ".git", ".dvc"):
            (temporary / item.name).symlink_to(item)
    return temporary


def _ingest_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", help="an ingest configuration (default: the one that conf/config.yaml selects)")
    parser.add_argument(
        "--domain", choices=("equity_ohlcv", "corporate_actions", "options_surface", "index_level"), help="only this domain"
    )
    parser.add_argument("--mode", choices=("auto", "rest", "flatfile"), help="how vendors that serve several ways are read")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and touch nothing")
    parser.add_argument("--offline", action="store_true", help="read the landing store only")
    parser.add_argument("--out", help="also keep the typed records below this folder")
    _set_argument(parser)


def _canonical_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--start-date", help="first session (default: that of params.yaml)")
    parser.add_argument("--end-date", help="last session (default: that of params.yaml)")


def _set_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-S", "--set", action="append", default=[], metavar="KEY=VALUE", help="a Hydra override; repeat at will")


COMMANDS = (
    Command(
        "ingest",
        "workflow",
        "fetch from vendors into the landing store",
        ingest,
        ("quanto ingest --config conf/ingest/polygon_equity_backfill.yaml --domain equity_ohlcv --mode rest", "quanto ingest --dry-run"),
        _ingest_arguments,
    ),
    Command(
        "build-canonical-datasets",
        "workflow",
        "build the canonical data from what was ingested",
        build_canonical_datasets,
        ("quanto build-canonical-datasets --start-date 2000-03-01 --end-date 2013-03-01",),
        _canonical_arguments,
    ),
    Command(
        "audit-leakage",
        "experiments",
        "prove the configured features free of look-ahead at every session",
        audit_leakage,
        ("quanto audit-leakage",),
        _set_argument,
    ),
)
