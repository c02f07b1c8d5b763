"""A fake of Alpaca's market data API: symbol-major pages across symbols, raw/split, recent SIP refused."""

from __future__ import annotations

import base64
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

from fakes.polygon import Market
from fakes.server import Call, FakeServer, Reply, json_reply

NEW_YORK = ZoneInfo("America/New_York")
ADJUSTMENTS = ("raw", "split", "dividend", "all")


class AlpacaDataFake(FakeServer):
    """`actions`: the groups of /v1/corporate-actions, each row with its symbol and process_date."""

    def __init__(self, market: Market, today: date, keys: tuple[str, str] = ("alpaca-id", "alpaca-secret"), *, free: bool = True) -> None:
        super().__init__()
        self.market, self.today, self.keys, self.free = market, today, keys, free
        self.actions: dict[str, list[dict[str, object]]] = {}

    def answer(self, call: Call) -> Reply:
        if (call.headers.get("apca-api-key-id"), call.headers.get("apca-api-secret-key")) != self.keys:
            return json_reply({"message": "forbidden."}, 403)
        if call.path == "/v2/stocks/bars":
            return self._bars(call)
        if call.path == "/v1/corporate-actions":
            return self._actions(call)
        return json_reply({"message": "Not Found"}, 404)

    def _bars(self, call: Call) -> Reply:
        if call.params.get("adjustment", "raw") not in ADJUSTMENTS or call.params.get("timeframe") != "1Day":
            return json_reply({"message": "invalid parameter"}, 400)
        start, end = (date.fromisoformat(call.params[name]) for name in ("start", "end"))
        if self.free and end >= self.today:
            return json_reply({"message": "subscription does not permit querying recent SIP data"}, 403)
        rows = [
            (symbol, day)
            for symbol in sorted(call.params["symbols"].split(","))
            for day in sorted(self.market.bars.get(symbol, {}))
            if start <= day <= min(end, self.today)
        ]
        limit = int(call.params.get("limit", "1000"))
        first = int(base64.b64decode(call.params["page_token"])) if "page_token" in call.params else 0
        bars: dict[str, list[dict[str, object]]] = {}
        for symbol, day in rows[first : first + limit]:
            bars.setdefault(symbol, []).append(self._row(symbol, day, call.params.get("adjustment", "raw")))
        more = first + limit < len(rows)
        token = base64.b64encode(str(first + limit).encode()).decode() if more else None
        return json_reply({"bars": bars, "next_page_token": token})

    def _row(self, symbol: str, day: date, adjustment: str) -> dict[str, object]:
        bar, factor = self.market.bars[symbol][day], 1.0
        if adjustment != "raw":
            for split in self.market.splits:
                when = date.fromisoformat(str(split["execution_date"]))
                if split["ticker"] == symbol and day < when <= self.today:
                    factor *= float(str(split["split_from"])) / float(str(split["split_to"]))
        stamp = datetime.combine(day, time(0), NEW_YORK).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        prices = {name: round(value * factor, 4) for name, value in (("o", bar.open), ("h", bar.high), ("l", bar.low), ("c", bar.close))}
        return {"t": stamp, **prices, "v": round(bar.volume / factor), "n": 5, "vw": prices["c"]}

    def _actions(self, call: Call) -> Reply:
        low, high = call.params.get("start", str(self.today)), call.params.get("end", str(self.today))
        symbols = set(call.params["symbols"].split(","))
        chosen = [
            (kind, row)
            for kind in sorted(self.actions)
            for row in self.actions[kind]
            if low <= str(row["process_date"]) <= high and symbols & set(map(str, row.values()))
        ]
        limit = int(call.params.get("limit", "100"))
        first = int(call.params.get("page_token", "0"))
        groups: dict[str, list[dict[str, object]]] = {}
        for kind, row in chosen[first : first + limit]:
            groups.setdefault(kind, []).append(row)
        token = str(first + limit) if first + limit < len(chosen) else None
        return json_reply({"corporate_actions": groups, "next_page_token": token})
