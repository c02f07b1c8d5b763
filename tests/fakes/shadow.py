"""The section `shadow` for the small market of `fakes.evaluation`."""

from __future__ import annotations

from typing import Any

import yaml
from fakes.evaluation import ROOT
from omegaconf import OmegaConf

from quanto.core.config import load_section
from quanto.stages.shadow.config import ShadowConfig

WINDOW: dict[str, Any] = {
    "split.train_start": None,
    "split.train_end": None,
    "split.test_start": None,
    "split.holdout_fraction": 0.15,
    "constraints.max_weight": 0.4,
    "execution.max_name_weight": 0.45,
}


def shadow_config(group: str = "default", **changes: Any) -> ShadowConfig:
    """Return the composed section `shadow`; `changes` are keys with `__` for the dot."""
    base = OmegaConf.create(yaml.safe_load((ROOT / "conf/config.yaml").read_text()))
    base.execution = OmegaConf.load(ROOT / "conf/execution/risk.yaml")
    base.features = OmegaConf.create({"index_series": "SPX"})
    base.shadow = OmegaConf.load(ROOT / f"conf/shadow/{group}.yaml")
    for key, value in WINDOW.items():
        OmegaConf.update(base, key, value)
    for key, value in changes.items():
        dotted = key.replace("__", ".")
        OmegaConf.update(base, dotted.replace("risk.", "execution.") if dotted.startswith("risk.") else f"shadow.{dotted}", value)
    resolved: Any = OmegaConf.to_container(base, resolve=True)
    return load_section("shadow", resolved["shadow"], ShadowConfig)
