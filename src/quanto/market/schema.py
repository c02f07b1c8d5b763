"""The tables that flow between the stages: columns, types, keys and the meaning of each column.

Keys are session dates of the exchange calendar, never timestamps. `known_on` is the date (New York) in whose
evening the row was knowable at the latest by the vendor's rule: a decision taken before the open of session s may
use rows with `known_on` < s. Payload columns lead from each row to the vendor's bytes.
"""

from __future__ import annotations

import pyarrow as pa

DOMAINS = ("equity_ohlcv", "corporate_actions", "options_surface", "index_level")

PRICES = ("open", "high", "low", "close")

# Price bases. raw: as traded. split: adjusted for splits after the session, as of `basis_as_of`.
# total: adjusted for splits and dividends. unknown: the raw basis cannot be derived; canonical quarantines.
BASES = ("raw", "split", "total", "unknown")

# Kinds of corporate actions that the pipeline can apply; any other kind quarantines the symbol.
ACTION_KINDS = (
    "split",  # ratio: new shares per old share (2.0 for 2:1, 0.1 for a 1:10 reverse split)
    "stock_dividend",  # ratio: new shares per old share (1.05 for 5 %)
    "cash_dividend",  # cash_usd: per share held at the close before the ex-date, before that day's split
    "special_dividend",  # as cash_dividend
    "spin_off",  # ratio: shares of `other_symbol` per share; cash_usd: value per share where known
    "cash_merger",  # cash_usd per share; the symbol ends
    "stock_merger",  # ratio: shares of `other_symbol` per share; the symbol ends
    "delisting",  # cash_usd per share paid out, where known; the symbol ends
    "symbol_change",  # other_symbol: the new ticker
    "unknown",  # seen but not understood: quarantines the symbol
)

_LINEAGE = [pa.field("payload", pa.string(), False), pa.field("payload_row", pa.int64(), False)]

RAW: dict[str, pa.Schema] = {
    "equity_ohlcv": pa.schema(
        [
            pa.field("session", pa.date32(), False),
            pa.field("symbol", pa.string(), False),
            *(pa.field(name, pa.float64()) for name in PRICES),
            pa.field("volume", pa.float64()),
            pa.field("adj_close", pa.float64()),  # the vendor's split and dividend adjusted close, if it gives one
            pa.field("basis", pa.string(), False),  # of open, high, low, close: one of BASES
            pa.field("volume_basis", pa.string(), False),  # raw or split
            pa.field("basis_as_of", pa.date32()),  # an adjusted basis counts the splits effective up to this date
            pa.field("known_on", pa.date32(), False),
            pa.field("provisional", pa.bool_(), False),  # the vendor had not yet declared the session final
            *_LINEAGE,
        ]
    ),
    "corporate_actions": pa.schema(
        [
            pa.field("symbol", pa.string(), False),
            pa.field("ex_date", pa.date32(), False),
            pa.field("kind", pa.string(), False),
            pa.field("ratio", pa.float64()),
            pa.field("cash_usd", pa.float64()),
            pa.field("currency", pa.string()),
            pa.field("other_symbol", pa.string()),
            pa.field("vendor_id", pa.string()),
            pa.field("known_on", pa.date32(), False),
            *_LINEAGE,
        ]
    ),
    "index_level": pa.schema(
        [
            pa.field("session", pa.date32(), False),  # for a monthly series: its last calendar day
            pa.field("series", pa.string(), False),  # SPX, VIX, TBILL_1M, ...
            pa.field("value", pa.float64()),
            pa.field("unit", pa.string(), False),  # level, fraction (an annual rate), fraction_per_month
            pa.field("known_on", pa.date32(), False),
            *_LINEAGE,
        ]
    ),
    "options_surface": pa.schema(
        [
            pa.field("session", pa.date32(), False),
            pa.field("symbol", pa.string(), False),
            pa.field("tenor_days", pa.float64(), False),  # calendar days to expiry
            pa.field("side", pa.string(), False),  # C, P or M (mean of both)
            pa.field("delta", pa.float64()),  # of the option: puts negative; null where the vendor gives none
            pa.field("strike", pa.float64()),  # raw basis, null on a delta grid
            pa.field("iv", pa.float64()),  # fraction per year (0.34, never 34)
            pa.field("bid", pa.float64()),
            pa.field("ask", pa.float64()),
            pa.field("open_interest", pa.float64()),  # of the previous session: known the next morning
            pa.field("volume", pa.float64()),
            pa.field("known_on", pa.date32(), False),
            *_LINEAGE,
        ]
    ),
}

_CHOICE = [
    pa.field("vendor", pa.string(), False),
    pa.field("vendors_seen", pa.string(), False),  # sorted names joined by "|"
    pa.field("method", pa.string(), False),  # priority, fallback, consensus, only
    pa.field("flags", pa.string(), False),  # sorted names joined by "|", empty if none
    pa.field("known_on", pa.date32(), False),
    *_LINEAGE,
]

CANONICAL: dict[str, pa.Schema] = {
    "equity_ohlcv": pa.schema(
        [
            pa.field("session", pa.date32(), False),
            pa.field("symbol", pa.string(), False),
            *(pa.field(name, pa.float64(), False) for name in (*PRICES, "volume")),  # raw: as traded
            *(pa.field(f"disagreement_{name}", pa.float64()) for name in (*PRICES, "volume")),  # null: one vendor
            *_CHOICE,
        ]
    ),
    "corporate_actions": pa.schema(
        [
            pa.field("symbol", pa.string(), False),
            pa.field("ex_date", pa.date32(), False),
            pa.field("kind", pa.string(), False),
            pa.field("ratio", pa.float64()),
            pa.field("cash_usd", pa.float64()),
            pa.field("other_symbol", pa.string()),
            *_CHOICE,
        ]
    ),
    "index_level": pa.schema(
        [
            pa.field("session", pa.date32(), False),
            pa.field("series", pa.string(), False),
            pa.field("value", pa.float64(), False),
            pa.field("unit", pa.string(), False),
            *_CHOICE,
        ]
    ),
    "options_surface": pa.schema([*list(RAW["options_surface"])[:-3], *_CHOICE]),
}

KEYS: dict[str, tuple[str, ...]] = {
    "equity_ohlcv": ("session", "symbol"),
    "corporate_actions": ("symbol", "ex_date", "kind", "other_symbol"),
    "index_level": ("series", "session"),
    "options_surface": ("session", "symbol", "tenor_days", "side", "delta", "strike"),
}

# A quarantined row keeps its reason and its way back to the bytes; `row` is the row as canonical JSON.
QUARANTINE = pa.schema(
    [
        pa.field("domain", pa.string(), False),
        pa.field("vendor", pa.string(), False),
        pa.field("key", pa.string(), False),
        pa.field("reason", pa.string(), False),
        pa.field("row", pa.string(), False),
        *_LINEAGE,
    ]
)


# The column by which a domain is partitioned into years.
DATE_COLUMN = {"equity_ohlcv": "session", "corporate_actions": "ex_date", "index_level": "session", "options_surface": "session"}
