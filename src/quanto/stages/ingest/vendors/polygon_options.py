"""Polygon's option chain snapshot to surface rows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import numpy as np

from quanto.stages.ingest.rows import MISSING, Records, join
from quanto.stages.ingest.stamps import local_stamps
from quanto.stages.ingest.vendor import Parsed, Payload, Shard
from quanto.stages.ingest.vendors.polygon_answers import envelope, results

SHARES = 100
STAMPS = (("underlying_asset", "last_updated"), ("last_quote", "last_updated"), ("day", "last_updated"), ("last_trade", "sip_timestamp"))


def parse(shard: Shard, payloads: Sequence[Payload]) -> Parsed:
    """Return one row per standard contract of the chain; adjusted contracts are left out and counted.

    An adjusted contract has other than 100 shares or further underlyings. IV is a decimal; greeks, quote and IV may
    be absent and are null then. Open interest is of the previous session.

    Raises
    ------
    ContractError
        If a field was renamed or removed.
    """
    adjusted: set[str] = set()
    parts: list[Parsed] = []
    for payload in payloads:
        records = results(envelope(payload.body))
        if urlsplit(payload.request["url"]).path.startswith("/v3/reference/options/contracts"):
            adjusted |= {str(record.get("ticker")) for record in records if _adjusted(record)}
        else:
            parts.append(_chain(shard, payload.sha256, records, frozenset(adjusted)))
    return join("options_surface", parts)


def _adjusted(contract: Mapping[str, object]) -> bool:
    return contract.get("shares_per_contract", SHARES) != SHARES or bool(contract.get("additional_underlyings"))


def _chain(shard: Shard, payload: str, chain: Sequence[Mapping[str, object]], adjusted: frozenset[str]) -> Parsed:
    flat = [_flatten(row, shard) for row in chain]
    records = Records(payload, flat)
    records.require("expiration_date", "strike_price", "contract_type")
    left_out = np.array([_adjusted(row) or str(row.get("ticker")) in adjusted for row in flat], dtype=bool)
    stamps = records.integers("stamp")
    sessions = local_stamps(stamps, "ns").astype("datetime64[D]")
    records.fault_where(np.isnat(sessions), lambda index: f"its stamp is no time in ns between 1985 and 2035 ({stamps[index]})")
    expiries = records.dates("expiration_date")
    sides = [{"call": "C", "put": "P"}.get(str(kind)) for kind in records.values("contract_type")]
    records.fault_where(np.array([side is None for side in sides]), lambda index: f"contract_type is {flat[index].get('contract_type')!r}")
    columns = {
        "session": sessions,
        "symbol": shard.symbols[0],
        "tenor_days": np.where(np.isnat(sessions) | np.isnat(expiries), np.nan, (expiries - sessions).astype(np.float64)),
        "side": sides,
        "strike": records.numbers("strike_price"),
        "delta": records.numbers("delta", optional=True),
        "iv": records.numbers("implied_volatility", optional=True),
        "bid": records.numbers("bid", optional=True),
        "ask": records.numbers("ask", optional=True),
        "open_interest": records.numbers("open_interest", optional=True),
        "volume": records.numbers("volume", optional=True),
        "known_on": sessions,
    }
    parsed = records.finish("options_surface", columns, lambda index: str(flat[index].get("ticker")), drop=left_out)
    notes = [f"{int(left_out.sum())} adjusted contracts left out"] if left_out.any() else []
    return join("options_surface", [parsed], notes)


def _flatten(row: Mapping[str, object], shard: Shard) -> dict[str, object]:
    out: dict[str, object] = {name: row[name] for name in ("implied_volatility", "open_interest") if name in row}
    for group, names in (
        ("details", ("ticker", "contract_type", "expiration_date", "strike_price", "shares_per_contract")),
        ("greeks", ("delta",)), ("last_quote", ("bid", "ask")), ("day", ("volume",)),
    ):  # fmt: skip
        inner = row.get(group)
        if isinstance(inner, Mapping):
            out |= {name: inner[name] for name in names if name in inner}
    for group, name in STAMPS:
        inner = row.get(group)
        value = inner.get(name, MISSING) if isinstance(inner, Mapping) else MISSING
        if value is not MISSING and value is not None:
            out["stamp"] = value
            break
    else:
        # A contract that never traded and has no quote carries no stamp: it belongs to the session that was asked for.
        out["stamp"] = int(np.datetime64(f"{shard.start}T20:00").astype("datetime64[ns]").astype(np.int64))
    return out
