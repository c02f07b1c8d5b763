"""dvc.yaml, conf/ and the code must tell one story."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from quanto.core.config import Section
from quanto.runtime.composition import check_params, compose_params, params_text
from quanto.runtime.frame import section_class
from quanto.runtime.pipeline import STAGES, declared

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf/experiment").glob("*.yaml"))
# What a stage section takes from the top level by interpolation, or what only names the run.
NAMES_ONLY = {"name"}


@cache
def module_file(name: str) -> Path | None:
    base = SOURCE / Path(*name.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def imports_of(file: Path) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(name for name in names if name.startswith("quanto"))


def closure(stage: str) -> set[Path]:
    found: set[Path] = set()
    waiting = [f"quanto.stages.{stage}.stage", f"quanto.stages.{stage}.config"]
    while waiting:
        name = waiting.pop()
        file = module_file(name)
        parents = [module_file(".".join(name.split(".")[:depth])) for depth in range(1, len(name.split(".")))]
        for item in [file, *parents]:
            if item is not None and item not in found:
                found.add(item)
                waiting += imports_of(item)
    return found


def is_only_a_docstring(file: Path) -> bool:
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in ast.parse(file.read_text()).body)


@pytest.mark.parametrize("stage", STAGES)
def test_the_listed_sources_cover_the_import_closure_of_the_stage(stage: str) -> None:
    listed = [ROOT / source for source in declared(ROOT, stage).sources]
    uncovered = [
        str(file.relative_to(ROOT))
        for file in closure(stage)
        if not any(file.is_relative_to(folder) for folder in listed) and not is_only_a_docstring(file)
    ]
    assert not uncovered, f"dvc.yaml: {stage} does not list what it imports: {sorted(uncovered)}"


@pytest.mark.parametrize("stage", STAGES)
def test_no_listed_source_is_idle(stage: str) -> None:
    files = closure(stage)
    sources = [source for source in declared(ROOT, stage).sources if source.startswith("src/")]
    idle = [source for source in sources if not any(file.is_relative_to(ROOT / source) for file in files if not is_only_a_docstring(file))]
    assert not idle, f"dvc.yaml: {stage} lists sources that it does not import: {idle}"


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_depends_on_the_pinned_packages_and_tracks_exactly_its_own_section(stage: str) -> None:
    section = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]
    assert "requirements.lock" in section["deps"]
    assert section["params"] == [stage]
    assert section["cmd"] == f"PYTHONPATH=src python -m quanto {stage}"


def test_params_yaml_equals_the_composition_of_conf() -> None:
    assert (ROOT / "params.yaml").read_text() == params_text(compose_params(ROOT)), "run `make params` and commit params.yaml"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_every_section_loads(experiment: str) -> None:
    check_params(compose_params(ROOT, [f"experiment={experiment}"]))


def test_no_configuration_reads_the_environment() -> None:
    offenders = [str(path) for path in (ROOT / "conf").rglob("*.yaml") if "oc.env" in path.read_text()]
    assert not offenders, "params.yaml would depend on the machine"


def section_fields(kind: type[Section]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    waiting: list[Any] = [kind]
    while waiting:
        item = waiting.pop()
        if isinstance(item, type) and issubclass(item, Section):
            for name, field in item.model_fields.items():
                fields[f"{item.__name__}.{name}"] = name
                waiting.append(field.annotation)
        else:
            waiting += get_args(item)
    return fields


@cache
def attributes_read() -> frozenset[str]:
    names: set[str] = set()
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                names.add(node.attr)
    return frozenset(names)


@cache
def handed_on_whole() -> frozenset[str]:
    """Sections that are handed to a library as keyword arguments, `ppo.model_dump(exclude=...)`: their tests read each one back there."""
    calls = [
        node
        for file in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]
    dumps = [call.func for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "model_dump" and call.keywords]
    return frozenset(f"{item.value.id.capitalize()}Config" for item in dumps if isinstance(item.value, ast.Name))


@pytest.mark.parametrize("stage", STAGES)
def test_every_setting_that_is_accepted_is_read_by_somebody(stage: str) -> None:
    fields = section_fields(section_class(stage)).items()
    unread = [path for path, name in fields if name not in attributes_read() and path.split(".")[0] not in handed_on_whole()]
    assert not unread, f"settings that nothing reads: {unread}"


def test_every_shared_setting_reaches_a_stage_section() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "conf").rglob("*.yaml"))
    referenced = set(re.findall(r"\$\{([a-z_.0-9]+)\}", text))
    sections = {*STAGES, "runtime"}
    unread = [
        path
        for path in leaves({key: value for key, value in compose_params(ROOT).items() if key not in sections | NAMES_ONLY})
        if not any(path == name or path.startswith(f"{name}.") for name in referenced)
    ]
    assert not unread, f"shared settings that no section takes: {unread}"


def leaves(value: Any, prefix: str = "") -> list[str]:
    if isinstance(value, dict) and value:
        return [path for key, item in value.items() for path in leaves(item, f"{prefix}.{key}" if prefix else str(key))]
    return [prefix]
