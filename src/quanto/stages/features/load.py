"""Canonical tables to a view: which value stood at which session, and when it was known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from quanto.core.errors import ConfigError, DataError, MissingDataError
from quanto.market.calendar import DateArray, as_date
from quanto.market.panel import FloatArray, build_panel, pivot
from quanto.market.point_in_time import members
from quanto.stages.features.config import FeaturesConfig, select_columns
from quanto.stages.features.surface import Surfaces
from quanto.stages.features.view import BAR_FIELDS, INDEX, VIX, MarketView, Versions

_IN_PANEL = ("split", "stock_dividend", "cash_dividend", "special_dividend", "spin_off")

# Kinds that change the panel, or nothing that features and accounting must know; any other kind quarantines the symbol.
_APPLIED = (*_IN_PANEL, "symbol_change")


@dataclass(frozen=True)
class CanonicalTables:
    """The canonical domains that every feature set may need."""

    bars: pa.Table
    actions: pa.Table
    index_level: pa.Table
    restated: pa.Table
    membership: pa.Table


def build_view(
    tables: CanonicalTables,
    sessions: DateArray,
    symbols: Sequence[str],
    series: dict[str, str],
    surface: Surfaces | None = None,
    universe: str | None = None,
) -> MarketView:
    """Return canonical tables as a view on the given sessions.

    Parameters
    ----------
    series
        From the view's names (`index`, `vix`) to series of the domain `index_level`.
    surface
        Measures of the options surfaces; None where no column reads them.
    universe
        The list of the membership table that says who belongs when; None: all symbols always do.

    Raises
    ------
    MissingDataError
        If a symbol has no bar, a series no value, or the surfaces no volatility on the sessions; names all of them.
    """
    bars, actions, index_level = tables.bars, tables.actions, tables.index_level
    panel = build_panel(bars, actions, sessions, symbols)
    levels = {name: _series(index_level, source, sessions, name) for name, source in series.items()}
    missing = [symbol for symbol, column in zip(symbols, panel.traded.T, strict=True) if not column.any()]
    absent = [source for name, source in series.items() if not np.isfinite(levels[name][0]).any()]
    flat = surface is not None and not np.isfinite(surface.measures["atm_30"]).any()
    if missing or absent or flat:
        window = f"from {as_date(sessions[0])} to {as_date(sessions[-1])}"
        what = [f"no bar of {', '.join(missing)}"] * bool(missing) + [f"no value of series {', '.join(absent)}"] * bool(absent)
        what += [f"no usable options surface of {', '.join(symbols)}"] * flat
        found = f"canonical data hold {' and '.join(what)} {window}"
        raise MissingDataError(f"{found}; ingest a vendor that has them, or take them out of the configuration")
    nothing = np.full(panel.close.shape, np.nan)
    return MarketView(
        panel=panel,
        bars_known=pivot(bars, "known_on", sessions, symbols),
        actions_known=_actions_known(actions, sessions, symbols, _IN_PANEL, inside=True),
        blocks_known=_actions_known(actions, sessions, symbols, _APPLIED, inside=False),
        series=levels,
        surface={} if surface is None else surface.measures,
        surface_known=nothing if surface is None else surface.known,
        member=np.ones(nothing.shape, dtype=np.bool_) if universe is None else members(tables.membership, universe, sessions, symbols),
        earlier=_versions(tables.restated, sessions, symbols),
    )


def _versions(restated: pa.Table, sessions: DateArray, symbols: Sequence[str]) -> Versions:
    """Return the versions of bars that a restatement replaced, ascending in the day they were known."""
    days, order = _days(restated, "session"), {symbol: column for column, symbol in enumerate(symbols)}
    row = np.minimum(np.searchsorted(sessions, days), len(sessions) - 1).astype(np.int64)
    column = np.array([order.get(symbol, -1) for symbol in restated["symbol"].to_pylist()], dtype=np.int64)
    values = np.stack([restated[name].to_numpy() for name in BAR_FIELDS], axis=1)
    versions = Versions(row, column, values, _days(restated, "known_on").astype(np.float64))
    ascending = np.argsort(versions.known, kind="stable")
    inside = (sessions[row] == days) & (column >= 0)
    return versions.take(ascending[inside[ascending]])


def first_session(tables: CanonicalTables, series: Sequence[str]) -> np.datetime64 | None:
    """Return the first day of any bar or of a wanted series: where warm-up history begins; None where there is none."""
    wanted = tables.index_level.filter(pc.is_in(tables.index_level["series"], pa.array(series, pa.string())))
    days = np.concatenate([_days(tables.bars, "session"), _days(wanted, "session")])
    return days.min() if len(days) else None


def _series(table: pa.Table, series: str, sessions: DateArray, name: str) -> tuple[FloatArray, FloatArray]:
    units = {unit for unit, found in zip(table["unit"].to_pylist(), table["series"].to_pylist(), strict=True) if found == series}
    if name == VIX and units - {"fraction"}:
        raise DataError(f"series {series} must be a fraction per year (0.20, not 20); found unit {', '.join(sorted(units))}")
    renamed = table.rename_columns(["symbol" if column == "series" else column for column in table.column_names])
    return pivot(renamed, "value", sessions, [series])[:, 0], pivot(renamed, "known_on", sessions, [series])[:, 0]


def _actions_known(actions: pa.Table, sessions: DateArray, symbols: Sequence[str], kinds: Sequence[str], *, inside: bool) -> FloatArray:
    """When the actions of (or outside) the kinds that take effect at each open were known; the latest where several do."""
    out = np.full((len(sessions), len(symbols)), np.nan)
    days, known = _days(actions, "ex_date"), _days(actions, "known_on")
    rows = np.searchsorted(sessions, days)
    order = {symbol: column for column, symbol in enumerate(symbols)}
    for row, day, kind, symbol, known_on in zip(rows, days, actions["kind"].to_pylist(), actions["symbol"].to_pylist(), known, strict=True):
        if (kind in kinds) is not inside or symbol not in order or row >= len(sessions) or day < sessions[0]:
            continue
        out[row, order[symbol]] = np.fmax(out[row, order[symbol]], known_on.astype(np.float64))
    return out


def _days(table: pa.Table, column: str) -> npt.NDArray[np.datetime64]:
    days: npt.NDArray[np.datetime64] = table[column].to_numpy().astype("datetime64[D]")
    return days


def wanted_series(config: FeaturesConfig) -> dict[str, str]:
    """Return which index series stand behind the view's names; only what a configured column or the labels read."""
    reads = select_columns(config).domains
    series = {INDEX: config.index_series}
    if VIX in reads:
        series[VIX] = config.vix_series
    if VIX in reads and config.vix_series is None:
        raise ConfigError("features.vix_series is null, but a configured column reads the VIX; name its series (VIX)")
    return {name: source for name, source in series.items() if source is not None}
