"""Fakes of the smaller data vendors: Tiingo, FRED, CBOE."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from fakes.polygon import Market
from fakes.server import Call, FakeServer, Reply, json_reply


class TiingoFake(FakeServer):
    """Raw rows with dividends and split factors; adjusted closes by the CRSP method are not computed (raw is repeated)."""

    def __init__(self, market: Market, today: date, key: str = "tiingo-key") -> None:
        super().__init__()
        self.market, self.today, self.key = market, today, key

    def answer(self, call: Call) -> Reply:
        if call.headers.get("authorization") != f"Token {self.key}":
            return json_reply({"detail": "Invalid token."}, 401)
        ticker = call.path.split("/")[3].replace("-", ".")
        if ticker not in self.market.bars:
            return json_reply({"detail": f"Error: Ticker '{ticker}' not found"}, 404)
        low, high = (date.fromisoformat(call.params[name]) for name in ("startDate", "endDate"))
        return json_reply([self._row(ticker, day) for day in sorted(self.market.bars[ticker]) if low <= day <= min(high, self.today)])

    def _row(self, ticker: str, day: date) -> dict[str, object]:
        bar = self.market.bars[ticker][day]
        on = day.isoformat()
        factor = 1.0
        for split in self.market.splits:
            if split["ticker"] == ticker and split["execution_date"] == on:
                factor *= float(str(split["split_to"])) / float(str(split["split_from"]))
        cash = sum(
            float(str(row["cash_amount"])) for row in self.market.dividends if row["ticker"] == ticker and row["ex_dividend_date"] == on
        )
        return {
            "date": f"{on}T00:00:00.000Z",
            "open": bar.open,
            "high": bar.high,
            "low": bar.low,
            "close": bar.close,
            "volume": int(bar.volume),
            "adjOpen": bar.open,
            "adjHigh": bar.high,
            "adjLow": bar.low,
            "adjClose": bar.close,
            "adjVolume": int(bar.volume),
            "divCash": cash,
            "splitFactor": factor,
        }


class FredFake(FakeServer):
    """Observations with listed holidays as dots, over the API (paged by offset) and as the graph's CSV."""

    def __init__(self, series: dict[str, dict[date, str]], key: str = "fred-key", page_rows: int = 100_000) -> None:
        super().__init__()
        self.series, self.key, self.page_rows = series, key, page_rows

    def answer(self, call: Call) -> Reply:
        if call.path == "/graph/fredgraph.csv":
            code = call.params["id"]
            low, high = date.fromisoformat(call.params["cosd"]), date.fromisoformat(call.params["coed"])
            lines = [f"{day},{'' if text == '.' else text}" for day, text in sorted(self.series[code].items()) if low <= day <= high]
            return Reply("\n".join([f"observation_date,{code}", *lines, ""]).encode(), content_type="application/csv")
        if call.params.get("api_key") != self.key:
            return json_reply({"error_code": 400, "error_message": "Bad Request. The value for variable api_key is not registered."}, 400)
        if call.params.get("series_id") not in self.series:
            return json_reply({"error_code": 400, "error_message": "Bad Request. The series does not exist."}, 400)
        low, high = (date.fromisoformat(call.params[f"observation_{name}"]) for name in ("start", "end"))
        rows = [(day, text) for day, text in sorted(self.series[call.params["series_id"]].items()) if low <= day <= high]
        offset, limit = int(call.params.get("offset", "0")), min(int(call.params.get("limit", "100000")), self.page_rows)
        stamps = {"realtime_start": "2026-01-08", "realtime_end": "2026-01-08"}
        observations = [{**stamps, "date": day.isoformat(), "value": text} for day, text in rows[offset : offset + limit]]
        return json_reply({"count": len(rows), "offset": offset, "limit": limit, "observations": observations})


class CboeFake(FakeServer):
    """Whole files with an ETag."""

    def __init__(self, files: dict[str, str]) -> None:
        super().__init__()
        self.files = files

    def answer(self, call: Call) -> Reply:
        name = call.path.rpartition("/")[2].removesuffix("_History.csv")
        if name not in self.files:
            return Reply(b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", 403, content_type="application/xml")
        reply = Reply(self.files[name].encode(), content_type="text/csv")
        return replace(reply, headers={"ETag": f'"{hash(self.files[name]) & 0xFFFF:x}"'})
