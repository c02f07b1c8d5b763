"""The `synthetic` vendor: seeded markets with known answers through the same pipeline as real ones."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from pydantic import Field, field_validator

from quanto.core.config import Section
from quanto.core.digest import digest_bytes
from quanto.core.errors import ConfigError
from quanto.market.calendar import DateArray, sessions_between
from quanto.market.schema import DATE_COLUMN, PRICES, RAW
from quanto.stages.ingest.vendor import IngestRequest, Landing, Parsed, Payload, Shard, VendorKind
from quanto.stages.ingest.vendors.synthetic_actions import Action, as_traded
from quanto.stages.ingest.vendors.synthetic_markets import FAMILIES, FloatArray, Market

DOMAINS = frozenset({"corporate_actions", "equity_ohlcv", "index_level"})

DIGITS = 10  # significant digits of prices, volumes and levels in the payload

# A family that shows its state (-1 or 1) shows it as the level of the VIX.
VIX_MIDDLE = 0.20
VIX_REACH = 0.10


class SyntheticOptions(Section):
    """Which market: a family of the registry, its seed, its first day, and whether splits and dividends are laid over it."""

    family: str
    seed: int = Field(ge=0)
    market_start: date
    corporate_actions: bool

    @field_validator("family")
    @classmethod
    def _registered(cls, family: str) -> str:
        return FAMILIES[family].name


@dataclass(frozen=True)
class SyntheticVendor:
    """One seeded market; each domain is one shard, and the payload is the generated table as CSV."""

    name: str
    options: SyntheticOptions

    @property
    def domains(self) -> frozenset[str]:
        return DOMAINS

    def plan(self, request: IngestRequest) -> tuple[Shard, ...]:
        """Return one shard with all symbols: a cross-section is generated as a whole.

        Raises
        ------
        ConfigError
            If the family takes another number of symbols.
        """
        family = FAMILIES[self.options.family]
        if request.end < self.options.market_start or request.interval != "day":
            return ()
        if request.domain != "index_level" and family.symbols not in (None, len(request.symbols)):
            raise ConfigError(f"{family.name} takes {family.symbols} symbol(s), found {len(request.symbols)}: {', '.join(request.symbols)}")
        return (Shard(self.name, request.domain, family.name, request.symbols, request.start, request.end),)

    def fetch(self, shard: Shard, landing: Landing) -> tuple[Payload, ...]:
        """Return the generated table; its digest is part of the request, so another generator is another request."""
        body = _csv(self._generate(shard))
        request = {
            "kind": "synthetic",
            "family": self.options.family,
            "seed": str(self.options.seed),
            "market_start": self.options.market_start.isoformat(),
            "domain": shard.domain,
            "symbols": " ".join(shard.symbols),
            "end": shard.end.isoformat(),
            "sha256": digest_bytes(body),
        }
        return (landing.put(request, body),)

    def parse(self, shard: Shard, payloads: Sequence[Payload]) -> Parsed:
        """Return the rows of the shard's dates; all prices raw, known in the evening of their session."""
        (payload,) = payloads
        schema = RAW[shard.domain]
        types = {field.name: field.type for field in schema if field.name not in ("payload", "payload_row")}
        options = pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=True, quoted_strings_can_be_null=False)
        frame = pyarrow.csv.read_csv(io.BytesIO(payload.body), convert_options=options)
        frame = frame.append_column("payload", pa.repeat(pa.scalar(payload.sha256), len(frame)))
        frame = frame.append_column("payload_row", pa.array(np.arange(len(frame))))
        day = frame[DATE_COLUMN[shard.domain]]
        inside = pc.and_(pc.greater_equal(day, pa.scalar(shard.start)), pc.less_equal(day, pa.scalar(shard.end)))
        return Parsed(frame.filter(inside).select(schema.names).cast(schema))

    def _generate(self, shard: Shard) -> pa.Table:
        sessions = sessions_between(self.options.market_start, shard.end)
        if shard.domain == "index_level":
            # The index is the market factor, or all symbols of a family of fixed size: the same whatever they are called.
            family = FAMILIES[self.options.family]
            market = self._market(("INDEX",) * (family.symbols or 1), sessions)
            return _level_table(market, family.bill_per_month, shard.symbols, sessions)
        market = self._market(shard.symbols, sessions)
        actions: tuple[Action, ...] = ()
        if self.options.corporate_actions:
            market, actions = as_traded(market, shard.symbols)
        return _action_table(actions, sessions) if shard.domain == "corporate_actions" else _bar_table(market, shard.symbols, sessions)

    def _market(self, symbols: tuple[str, ...], sessions: DateArray) -> Market:
        return FAMILIES[self.options.family].generate(self.options.seed, symbols, sessions)


def _bar_table(market: Market, symbols: tuple[str, ...], sessions: DateArray) -> pa.Table:
    days = np.repeat(sessions, len(symbols))
    bars = {name: _rounded(getattr(market, name)).ravel() for name in PRICES}
    # Rounding must not put a close outside its own range.
    bars["high"] = np.maximum.reduce([bars["high"], bars["open"], bars["close"]])
    bars["low"] = np.minimum.reduce([bars["low"], bars["open"], bars["close"]])
    constant = {"basis": "raw", "volume_basis": "raw", "basis_as_of": None}
    columns = {
        "session": days,
        "symbol": list(symbols) * len(sessions),
        **bars,
        "volume": _rounded(market.volume).ravel(),
        "adj_close": None,
    }
    return _table("equity_ohlcv", len(days), columns | constant | {"known_on": days, "provisional": False})


def _action_table(actions: tuple[Action, ...], sessions: DateArray) -> pa.Table:
    columns = {
        "symbol": [item.symbol for item in actions],
        "ex_date": sessions[[item.session for item in actions]],
        "kind": [item.kind for item in actions],
        "ratio": [item.ratio for item in actions],
        "cash_usd": [item.cash_usd for item in actions],
        "currency": "USD",
        "other_symbol": None,
        "vendor_id": None,
        "known_on": sessions[[item.session - 1 for item in actions]],
    }
    return _table("corporate_actions", len(actions), columns)


def _level_table(market: Market, bill_per_month: float, series: tuple[str, ...], sessions: DateArray) -> pa.Table:
    month_ends = (np.unique(sessions.astype("datetime64[M]")) + 1).astype("datetime64[D]") - 1
    known = {
        "SPX": (sessions, _rounded(market.index), "level"),
        "TBILL_1M": (month_ends, np.full(len(month_ends), bill_per_month), "fraction_per_month"),
    }
    if market.state is not None:
        known["VIX"] = (sessions, VIX_MIDDLE + VIX_REACH * market.state, "fraction")
    held = [(name, *known[name]) for name in series if name in known]
    days = np.concatenate([np.empty(0, "datetime64[D]"), *(item[1] for item in held)])
    columns: dict[str, object] = {
        "session": days,
        "series": [name for name, on, _, _ in held for _ in on],
        "value": np.concatenate([np.empty(0), *(item[2] for item in held)]),
        "unit": [unit for _, on, _, unit in held for _ in on],
        "known_on": days,
    }
    return _table("index_level", len(days), columns)


def _table(domain: str, rows: int, columns: dict[str, object]) -> pa.Table:
    schema = pa.schema([field for field in RAW[domain] if field.name not in ("payload", "payload_row")])
    return pa.table({name: _column(columns[name], schema.field(name).type, rows) for name in schema.names}, schema=schema)


def _column(value: object, kind: pa.DataType, rows: int) -> pa.Array:
    return pa.array(value, kind) if isinstance(value, np.ndarray | list) else pa.repeat(pa.scalar(value, kind), rows)


def _rounded(values: FloatArray) -> FloatArray:
    """Return positive values with a fixed number of significant digits."""
    scale = 10.0 ** (DIGITS - 1 - np.floor(np.log10(values)))
    rounded: FloatArray = np.rint(values * scale) / scale
    return rounded


def _csv(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(table, sink)
    return bytes(sink.getvalue())


def _build(name: str, options: SyntheticOptions, _workspace: Path) -> SyntheticVendor:
    return SyntheticVendor(name, options)


SYNTHETIC = VendorKind(
    "synthetic",
    "seeded markets with known answers: noise, planted edge, regime switching, single asset",
    DOMAINS,
    frozenset({"synthetic"}),
    SyntheticOptions,
    _build,
)
