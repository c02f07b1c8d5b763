"""The one frame around all eight stages: section, typed configuration, run, manifest.

1. read params.yaml and check the stage's own section: all faults in one message;
2. digest the inputs and the sources that dvc.yaml declares;
3. run the stage with its configuration, the workspace and an executor;
4. digest them again: an input or a source that changed under the run makes it worthless, and is an error;
5. write the manifest.
"""

from __future__ import annotations

import importlib
import logging
import sys
import time
from pathlib import Path
from typing import Any

from quanto.core.config import Section, load_section, read_yaml
from quanto.core.errors import ConfigError, IntegrityError, QuantoError
from quanto.core.manifest import Manifest, describe_inputs, describe_outputs
from quanto.core.registry import unknown_name
from quanto.core.store import write_bytes
from quanto.runtime.compute import RuntimeConfig, open_executor
from quanto.runtime.pipeline import STAGES, Declared, declared

logger = logging.getLogger("quanto")


def main(arguments: list[str]) -> int:
    """Run the stage named by the only argument in the working folder; return 0, or 1 after printing the error."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if len(arguments) != 1 or arguments[0] not in STAGES:
        sys.stderr.write(f"{unknown_name('stage', ' '.join(arguments), list(STAGES))}\n")
        return 2
    try:
        run_stage(arguments[0], Path.cwd())
    except QuantoError as error:
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
        sys.stderr.write(f"{type(error).__name__}: {error}{notes}\n")
        return 1
    return 0


def run_stage(stage: str, workspace: Path) -> Manifest:
    """Run one stage below `workspace` and return its manifest, which is also written there.

    Raises
    ------
    QuantoError
        Whatever the stage raises, with a note that names the stage.
    """
    params = read_yaml(workspace / "params.yaml")
    config = stage_config(stage, params)
    runtime = load_section("runtime", params.get("runtime"), RuntimeConfig)
    plan = declared(workspace, stage)
    started = time.monotonic()
    try:
        before = _digests(workspace, plan)
        with open_executor(runtime, stage) as executor:
            importlib.import_module(f"quanto.stages.{stage}.stage").run(config, workspace, executor)
        _refuse_moving_ground(before, _digests(workspace, plan))
        manifest = Manifest(
            stage=stage,
            config=dict(_section(params, stage)),
            inputs={name: before[name] for name in plan.inputs},
            sources={name: before[name] for name in plan.sources},
            outputs=describe_outputs(workspace, list(plan.outputs)),
        )
    except QuantoError as error:
        error.add_note(f"in stage {stage}")
        raise
    write_bytes(workspace / plan.manifest, manifest.to_json())
    logger.info("%s: %d files in %.1f s", stage, len(manifest.outputs), time.monotonic() - started)
    return manifest


def stage_config(stage: str, params: dict[str, Any]) -> Section:
    """Return the checked section of a stage.

    Raises
    ------
    ConfigError
        With all faults of the section, or if params.yaml has none.
    """
    return load_section(stage, _section(params, stage), section_class(stage))


def section_class(stage: str) -> type[Section]:
    """Return the one `Section` subclass called `<Stage>Config` in the stage's config module."""
    module = importlib.import_module(f"quanto.stages.{stage}.config")
    kind: type[Section] = getattr(module, f"{stage.capitalize()}Config")
    return kind


def _section(params: dict[str, Any], stage: str) -> dict[str, Any]:
    section = params.get(stage)
    if not isinstance(section, dict):
        raise ConfigError(f"params.yaml has no section {stage!r}; run `make params`")
    return section


def _digests(workspace: Path, plan: Declared) -> dict[str, str]:
    return describe_inputs(workspace, [*plan.inputs, *plan.sources])


def _refuse_moving_ground(before: dict[str, str], after: dict[str, str]) -> None:
    moved = sorted(name for name, digest in before.items() if after[name] != digest)
    if moved:
        raise IntegrityError(f"{', '.join(moved)} changed while the stage ran; its result belongs to neither version. Run it again")
