"""Configuration sections: strict, frozen, loaded through JSON, with all faults in one message."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from quanto.core.errors import ConfigError, MissingDataError


class Section(BaseModel):
    """A checked, frozen part of the configuration; unknown keys and wrong types are refused."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


SectionT = TypeVar("SectionT", bound=Section)


def load_section(name: str, raw: object, kind: type[SectionT]) -> SectionT:
    """Return the raw mapping as a frozen section.

    Raises
    ------
    ConfigError
        With every fault of the section: its path, what was expected, what was found.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{name}: expected a section (a mapping), found {type(raw).__name__}")
    try:
        # JSON mode: strict types, yet ISO text is a date and a list is a tuple.
        return kind.model_validate_json(json.dumps(raw, default=_iso))
    except ValidationError as error:
        faults = [_fault(name, item) for item in error.errors(include_url=False)]
        raise ConfigError("; ".join(faults)) from None


def read_yaml(path: Path) -> dict[str, object]:
    """Return the mapping of a YAML file, loaded safely.

    Raises
    ------
    MissingDataError
        If the file does not exist.
    ConfigError
        If it is no YAML mapping; says where.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingDataError(f"{path} does not exist; `make params` writes params.yaml from conf/") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a mapping at the top, found {type(value).__name__}")
    return value


def _iso(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    raise ConfigError(f"a configuration holds a {type(value).__name__}, which no setting takes")


def _fault(name: str, item: Mapping[str, object]) -> str:
    location = item["loc"]
    path = ".".join(map(str, (name, *location))) if isinstance(location, tuple) else name
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        message = "unknown key"
    found = "" if item["type"] == "missing" else f" (found {item['input']!r})"
    return f"{path}: {message}{found}"
