"""Small seeded markets for the tests of features: views directly, or canonical tables on disk."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from quanto.core.store import write_table
from quanto.market.calendar import sessions_between
from quanto.market.panel import Panel
from quanto.market.schema import CANONICAL, DATE_COLUMN
from quanto.stages.features.config import FeaturesConfig
from quanto.stages.features.view import MarketView

SYMBOLS = ("AAA", "BBB", "CCC", "DDD", "EEE", "FFF", "GGG", "HHH")


def market(sessions: int = 300, names: int = 4, seed: int = 1, start: date = date(2001, 1, 2)) -> MarketView:
    """Return a complete market with one split per name, an index, a VIX and a surface with holes."""
    rng = np.random.default_rng(seed)
    days = sessions_between(start, date(start.year + sessions // 240 + 2, 12, 31))[:sessions]
    common = 0.012 * rng.standard_normal(sessions) * (1 + (np.arange(sessions) // 60 % 2))
    returns = common[:, None] + 0.015 * rng.standard_normal((sessions, names))
    true_close = (20 + 30 * rng.random(names)) * np.exp(np.cumsum(returns, axis=0))
    gap = np.exp(0.005 * rng.standard_normal((sessions, names)))
    true_open = np.vstack([true_close[:1], true_close[:-1]]) * gap
    high = np.maximum(true_open, true_close) * np.exp(0.006 * rng.random((sessions, names)))
    low = np.minimum(true_open, true_close) * np.exp(-0.006 * rng.random((sessions, names)))
    volume = np.round(1e6 * np.exp(0.4 * rng.standard_normal((sessions, names))))
    split = np.ones((sessions, names))
    for column in range(names):
        split[int(rng.integers(sessions // 4, sessions)), column] = (2.0, 1.5, 0.1, 7.0)[column % 4]
    shares = np.cumprod(split, axis=0)
    known = np.repeat(days.astype(np.float64)[:, None], names, axis=1)
    nothing = np.full((sessions, names), np.nan)
    panel = Panel(
        days, SYMBOLS[:names] if names <= len(SYMBOLS) else tuple(f"N{number:04d}" for number in range(names)),
        true_open / shares, high / shares, low / shares, true_close / shares, np.round(volume * shares), split, np.zeros((sessions, names)),
    )  # fmt: skip
    day = days.astype(np.float64)
    index = 1000 * np.exp(np.cumsum(common))
    vix = 20 * np.exp(0.3 * rng.standard_normal(sessions))
    return MarketView(
        panel=panel,
        bars_known=known,
        actions_known=np.where(split != 1.0, known, np.nan),
        blocks_known=nothing,
        series={"index": (index, day), "vix": (vix, day)},
        surface=_surface(known, rng),
        surface_known=known,
        member=np.ones((sessions, names), dtype=np.bool_),
    )


def _surface(known: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    level = 0.3 * np.exp(0.2 * np.sin(np.arange(len(known)) / 40))[:, None] * np.exp(0.05 * rng.standard_normal(known.shape))
    measures = {name: level + 0.01 * rng.standard_normal(known.shape) for name in ("atm_30", "atm_60", "atm_90", "call_25_30", "put_25_30")}
    for name in ("call_open_interest", "put_open_interest", "call_volume", "put_volume"):
        measures[name] = np.round(1e4 * np.exp(rng.standard_normal(known.shape)))
    return {name: np.where(rng.random(known.shape) < 0.02, np.nan, values) for name, values in measures.items()}


def features_config(view: MarketView, **changes: object) -> FeaturesConfig:
    """Return a configuration that covers a view; all columns, every setting at its widest."""
    sessions = view.sessions.astype(object)
    settings: dict[str, object] = {
        "symbols": view.symbols,
        "start_date": sessions[0],
        "end_date": sessions[-1],
        "feature_set": "core_v1_regime",
        "regime_feature_set": None,
        "columns": None,
        "market_columns": None,
        "selection": "hindsight",
        "membership": None,
        "index_series": "SPX",
        "vix_series": "VIX",
        "regime_labeller": "volatility_hysteresis_v1",
        "eligible_lookback_sessions": 72,
        "minimum_history_sessions": 0,
        "clip": 5.0,
        "split": {"train_start": None, "train_end": None, "test_start": None, "holdout_fraction": 0.3},
        "proof_sessions": 64,
        "seed": 7,
        **changes,
    }
    return FeaturesConfig(**settings)


def write_canonical(folder: Path, view: MarketView) -> None:
    """Write a view as canonical tables below `folder`, as the canonical stage does."""
    lineage = {"vendor": "test", "vendors_seen": "test", "method": "only", "flags": "", "payload": "0" * 64, "payload_row": 0}
    panel, sessions = view.panel, view.sessions.astype(object)
    bars = []
    for row, column in zip(*np.nonzero(panel.traded), strict=True):
        prices = {name: float(getattr(panel, name)[row, column]) for name in ("open", "high", "low", "close", "volume")}
        known_on = _day(view.bars_known[row, column])
        bars.append({"session": sessions[row], "symbol": view.symbols[column], **prices, **lineage, "known_on": known_on})
    actions = []
    for row, column in zip(*np.nonzero(panel.split != 1.0), strict=True):
        known_on = _day(view.actions_known[row, column])
        action = {"symbol": view.symbols[column], "ex_date": sessions[row], "kind": "split", "ratio": float(panel.split[row, column])}
        actions.append({**action, **lineage, "known_on": known_on})
    levels = []
    for name, series in (("index", "SPX"), ("vix", "VIX")):
        values, known = view.series[name]
        levels += [
            {
                "session": day,
                "series": series,
                "value": float(value),
                "unit": "fraction" if name == "vix" else "level",
                **lineage,
                "known_on": _day(when),
            }
            for day, value, when in zip(sessions, values, known, strict=True)
            if np.isfinite(value)
        ]
    _write(folder, "equity_ohlcv", sorted(bars, key=lambda bar: (bar["session"], bar["symbol"])))
    _write(folder, "corporate_actions", sorted(actions, key=lambda action: (action["symbol"], action["ex_date"])))
    _write(folder, "index_level", sorted(levels, key=lambda level: (level["series"], level["session"])))


def _day(days: float) -> date:
    return date(1970, 1, 1) + timedelta(days=int(days))


def _write(folder: Path, domain: str, rows: list[dict[str, object]]) -> None:
    by_year: dict[int, list[dict[str, object]]] = {}
    for row in rows:
        by_year.setdefault(row[DATE_COLUMN[domain]].year, []).append(row)  # type: ignore[attr-defined]
    for year, part in by_year.items():
        table = pa.Table.from_pylist(part, schema=CANONICAL[domain])
        write_table(folder / "data/canonical" / domain / f"year={year}" / "part.parquet", table)


def write_surfaces(folder: Path, view: MarketView, symbols: tuple[str, ...]) -> None:
    """Write a small delta grid at 30 and 60 days for some symbols, whose level, skew (about -4 points) and volume move."""
    lineage = {"vendor": "test", "vendors_seen": "test", "method": "only", "flags": "", "payload": "0" * 64, "payload_row": 0}
    empty = dict.fromkeys(CANONICAL["options_surface"].names)
    points = (("C", 0.25, -0.02, 10.0), ("C", 0.5, 0.0, 10.0), ("P", -0.5, 0.0, 15.0), ("P", -0.25, 0.02, 15.0))
    rows = []
    for number, day in enumerate(view.sessions.astype(object)):
        for symbol in symbols:
            for side, delta, skew, volume in points:
                level = 0.3 + 0.05 * np.sin(number / 15) + skew * (1 + 0.2 * np.sin(number / 7))
                # One tenor at 30 days, so that its points come back unchanged; volume on that tenor alone.
                for tenor, traded in ((30.0, volume + number % 5), (60.0, None)):
                    row = {"session": day, "symbol": symbol, "tenor_days": tenor, "side": side, "delta": delta, "iv": level}
                    rows.append({**empty, **row, "volume": traded, **lineage, "known_on": day})
    _write(folder, "options_surface", rows)
