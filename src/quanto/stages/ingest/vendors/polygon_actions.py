"""Polygon's splits and dividends to rows, from the new (`/stocks/v1`) and the old (`/v3/reference`) endpoints. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import numpy as np

from quanto.market.calendar import as_date
from quanto.stages.ingest.actions import Action, actions_table, cash_kind, known_before
from quanto.stages.ingest.rows import Records, join
from quanto.stages.ingest.vendor import Parsed, Payload, Rejected, Shard
from quanto.stages.ingest.vendors.polygon_answers import envelope, results


def parse(shard: Shard, payloads: Sequence[Payload]) -> Parsed:
    """Return the corporate actions of one symbol, future ex-dates included.

    Raises
    ------
    ContractError
        If a required field was renamed or removed.
    """
    actions: list[Action] = []
    rejected: list[Rejected] = []
    for payload in payloads:
        records = Records(payload.sha256, results(envelope(payload.body)))
        splits = urlsplit(payload.request["url"]).path.endswith("/splits")
        found = _splits(records) if splits else _dividends(records)
        _check_symbol(records, shard.symbols[0])
        actions += [action for action in found if action.payload_row not in records.faults]
        rejected += [
            Rejected(f"{shard.symbols[0]}/{payload.sha256[:12]}/{index}", reason, dict(records.records[index]), payload.sha256, index)
            for index, reason in sorted(records.faults.items())
        ]
    table, notes = actions_table(actions)
    return join("corporate_actions", [Parsed(table, tuple(rejected), notes)])


def _check_symbol(records: Records, symbol: str) -> None:
    wrong = np.array([ticker != symbol for ticker in records.values("ticker")], dtype=bool)
    records.fault_where(wrong, lambda index: f"ticker is {records.records[index].get('ticker')!r}, asked was {symbol!r}")


def _splits(records: Records) -> list[Action]:
    records.require("ticker", "split_from", "split_to")  # the newer endpoint may leave out execution_date: such a row is rejected
    dates = records.dates("execution_date")
    old, new = records.numbers("split_from"), records.numbers("split_to")
    records.fault_where(~((old > 0) & (new > 0)), lambda index: f"a split of {old[index]:g} into {new[index]:g} shares is none")
    symbols, ids = records.texts("ticker"), records.texts("id", optional=True)
    kinds = records.texts("adjustment_type", optional=True)
    return [
        Action(
            symbol=symbols[index] or "",
            ex_date=as_date(dates[index]),
            kind="stock_dividend" if kinds[index] == "stock_dividend" else "split",
            known_on=known_before(as_date(dates[index])),
            payload=records.payload,
            payload_row=index,
            ratio=float(new[index] / old[index]),
            vendor_id=ids[index],
        )
        for index in range(len(records))
        if index not in records.faults
    ]


def _dividends(records: Records) -> list[Action]:
    records.require("ticker", "ex_dividend_date", "cash_amount")
    dates, declared = records.dates("ex_dividend_date"), records.dates("declaration_date", optional=True)
    cash = records.numbers("cash_amount")
    records.fault_where(~(cash > 0), lambda index: f"cash_amount is not positive ({cash[index]:g})")
    symbols, ids = records.texts("ticker"), records.texts("id", optional=True)
    currencies = records.texts("currency", optional=True)
    old_kinds, new_kinds = records.texts("dividend_type", optional=True), records.texts("distribution_type", optional=True)
    actions = []
    for index in range(len(records)):
        if index in records.faults:
            continue
        ex_date = as_date(dates[index])
        special = old_kinds[index] == "SC" or new_kinds[index] == "special"
        kind = cash_kind(currencies[index], special)
        announced = None if np.isnat(declared[index]) else as_date(declared[index])
        actions.append(
            Action(
                symbol=symbols[index] or "",
                ex_date=ex_date,
                kind=kind,
                known_on=known_before(ex_date, announced),
                payload=records.payload,
                payload_row=index,
                cash_usd=float(cash[index]) if kind != "unknown" else None,
                currency=currencies[index] or "USD",
                vendor_id=ids[index],
            )
        )
    return actions
