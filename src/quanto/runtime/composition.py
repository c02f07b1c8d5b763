"""Hydra's composition of conf/ into params.yaml, the way `dvc exp run` does it, and the checks of all sections."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from quanto.core.config import load_section
from quanto.core.errors import ConfigError
from quanto.core.store import write_bytes
from quanto.runtime.compute import RuntimeConfig
from quanto.runtime.frame import section_class
from quanto.runtime.pipeline import STAGES

# Keys of an experiment spec (the seed's) that stand at the top of the configuration.
SPEC_KEYS = ("name", "symbols", "start_date", "end_date", "feature_set", "regime_feature_set", "policy_params")


def compose_params(workspace: Path, overrides: Sequence[str] = (), replaced: Mapping[str, Path] | None = None) -> dict[str, Any]:
    """Return the composed configuration with every interpolation resolved.

    Parameters
    ----------
    replaced
        Sections that are read from a YAML file of their own instead of their group (it may interpolate shared keys).

    Raises
    ------
    ConfigError
        If a group, an option or a key does not exist, or an interpolation does not resolve; Hydra's own words say which.
    """
    try:
        with initialize_config_dir(str((workspace / "conf").absolute()), version_base=None):
            composed = compose(config_name="config", overrides=list(overrides))
        for section, path in (replaced or {}).items():
            OmegaConf.set_struct(composed, False)
            composed[section] = OmegaConf.load(path)
        resolved = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, OSError, yaml.YAMLError) as error:
        raise ConfigError(f"conf/ does not compose: {_explained(workspace, str(error))}") from error
    if not isinstance(resolved, dict):
        raise ConfigError("conf/config.yaml must compose to a mapping")
    return {str(key): value for key, value in resolved.items()}


def _explained(workspace: Path, words: str) -> str:
    """Return Hydra's words; for a key that does not exist the closest one that does, since `+` would not help here."""
    wrong = re.search(r"Could not override '([^']+)'", words)
    if wrong is None:
        return words
    with initialize_config_dir(str((workspace / "conf").absolute()), version_base=None):
        known = list(_leaves(OmegaConf.to_container(compose(config_name="config"), resolve=True)))
    close = difflib.get_close_matches(wrong.group(1), known, n=3)
    guess = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"there is no setting {wrong.group(1)!r}{guess} (params.yaml shows all of them)"


def _leaves(value: object, prefix: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix


def check_params(params: dict[str, Any]) -> None:
    """Check every section of a composed configuration.

    Raises
    ------
    ConfigError
        With the faults of all sections in one message.
    """
    faults: list[str] = []
    kinds = {stage: section_class(stage) for stage in STAGES} | {"runtime": RuntimeConfig}
    for name, kind in kinds.items():
        try:
            load_section(name, params.get(name), kind)
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("; ".join(faults))


def write_params(workspace: Path, params: dict[str, Any]) -> None:
    """Write params.yaml as DVC writes it, atomically."""
    write_bytes(workspace / "params.yaml", params_text(params).encode())


def params_text(params: dict[str, Any]) -> str:
    """Return params.yaml as text: the order of composition, block style, as `dvc exp run` leaves it."""
    text: str = yaml.safe_dump(params, sort_keys=False, default_flow_style=False, allow_unicode=True, width=2**20)
    return text


def spec_overrides(spec: dict[str, object]) -> list[str]:
    """Return Hydra overrides that set the keys of an experiment spec on top of `experiment=none`.

    Raises
    ------
    ConfigError
        Naming every key that is no key of a spec.
    """
    unknown = sorted(set(spec) - set(SPEC_KEYS))
    if unknown:
        raise ConfigError(f"an experiment spec has no key {', '.join(unknown)}; it takes {', '.join(SPEC_KEYS)}")
    overrides = ["experiment=none"]
    for key, value in spec.items():
        if isinstance(value, dict):
            overrides += [f"{key}.{name}={literal(item)}" for name, item in value.items()]
        else:
            overrides.append(f"{key}={literal(value)}")
    return overrides


def literal(value: object) -> str:
    """Return a value in the grammar of Hydra's overrides."""
    if isinstance(value, list):
        return f"[{','.join(map(literal, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    if isinstance(value, int | float):
        return str(value)
    # Quoted: a date stays text and a comma does not split. Hydra unescapes the quote and the backslash.
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
