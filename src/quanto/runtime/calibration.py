"""Measuring the gates of a workspace: `quanto calibrate-gates` writes reports/promotion/calibration.json, which promotion needs."""

from __future__ import annotations

from pathlib import Path

from quanto.core.config import load_section, read_yaml
from quanto.core.errors import QuantoError
from quanto.core.store import read_json, read_table, write_json
from quanto.market.schema import CANONICAL
from quanto.runtime.compute import RuntimeConfig, open_executor
from quanto.stages.qualify.calibration import calibrate_gates, canonical_returns
from quanto.stages.qualify.config import QualifyConfig

CALIBRATION = "reports/promotion/calibration.json"


def calibrate(workspace: Path, markets: int = 2000, power_markets: int = 1000) -> dict[str, object]:
    """Measure the gates with the thresholds of params.yaml, write the result beside earlier ones, and return it.

    Results of other thresholds stay; results of other gate code stay too, and count for nothing.

    Parameters
    ----------
    markets, power_markets
        Drawn per null family, and per planted cell; 2,000 and 1,000 take some 25 minutes on two cores.

    Raises
    ------
    MissingDataError
        If there are no canonical data, whose returns two of the null families use.
    """
    params = read_yaml(workspace / "params.yaml")
    config = load_section("qualify", params.get("qualify"), QualifyConfig)
    domains = ("equity_ohlcv", "corporate_actions")
    bars, actions = (read_table(workspace / "data/canonical" / name, CANONICAL[name]) for name in domains)
    with open_executor(load_section("runtime", params.get("runtime"), RuntimeConfig)) as executor:
        found = calibrate_gates(config.thresholds, canonical_returns(bars, actions), executor, markets, power_markets, config.seed)
    write_json(workspace / CALIBRATION, {**_earlier(workspace), **found})
    return found


def _earlier(workspace: Path) -> dict[str, object]:
    try:
        value = read_json(workspace / CALIBRATION)
    except QuantoError:
        return {}
    return dict(value) if isinstance(value, dict) else {}
