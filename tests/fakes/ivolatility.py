"""A fake of IVolatility: small answers inline, large ones as a file job with pending polls."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
from datetime import date

from fakes.server import Call, FakeServer, Reply, json_reply

Rows = list[dict[str, object]]


class IVolatilityFake(FakeServer):
    """`tables`: path -> rows with symbol and date. Above `inline_rows` the answer is a job."""

    def __init__(self, tables: dict[str, Rows], key: str = "ivol-key", inline_rows: int = 500) -> None:
        super().__init__()
        self.tables, self.key, self.inline_rows = tables, key, inline_rows
        self.pending_polls = 2
        self.unfilled_polls = 1
        self.fails = False
        self.content_type = "application/json"
        self._jobs: dict[str, Rows] = {}
        self._polls: dict[str, int] = {}
        self._number = itertools.count(1)

    def answer(self, call: Call) -> Reply:
        if self.key not in (call.headers.get("apikey"), call.params.get("apiKey")):
            return json_reply({"message": "Invalid API key"}, 401)
        if call.path.startswith("/data/info/"):
            return self._info(call.path.rpartition("/")[2])
        if call.path.startswith("/data/download/"):
            name = call.path.rpartition("/")[2].removesuffix(".csv.gz")
            return Reply(packed(self._jobs[name]), content_type="application/octet-stream")
        if call.path not in self.tables:
            return json_reply({"message": "No permission for this endpoint"}, 403)
        return self._first(call)

    def _first(self, call: Call) -> Reply:
        low, high = call.params["from"], call.params["to"]
        rows = [row for row in self.tables[call.path] if row["symbol"] == call.params["symbol"] and low <= str(row["date"])[:10] <= high]
        status: dict[str, object] = {"executionTime": 7, "recordsFound": len(rows), "code": "DONE", "urlForDetails": None}
        if not rows:
            status["reason"] = "NO_DATA"
        if len(rows) <= self.inline_rows:
            reply = json_reply({"status": status, "query": {"requestUUID": None}, "data": rows})
            return Reply(reply.body, 200, {}, self.content_type)
        name = f"job-{next(self._number)}"
        self._jobs[name] = rows
        status |= {"code": "PENDING", "urlForDetails": f"{self.base_url}/data/info/{name}"}
        return json_reply({"status": status, "query": {"requestUUID": name}, "data": []})

    def _info(self, name: str) -> Reply:
        poll = self._polls[name] = self._polls.get(name, 0) + 1
        meta: dict[str, object] = {"status": "PENDING", "recordsCount": 0}
        data: list[dict[str, object]] = []
        if self.fails:
            meta["status"] = "FAILED"
        elif poll > self.pending_polls:
            meta = {"status": "COMPLETE", "recordsCount": len(self._jobs[name])}
            if poll > self.pending_polls + self.unfilled_polls:
                body = packed(self._jobs[name])
                data = [{"urlForDownload": f"{self.base_url}/data/download/{name}.csv.gz", "fileSize": len(body)}]
        return json_reply([{"meta": meta, "data": data}])


def packed(rows: Rows) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return gzip.compress(out.getvalue().encode(), mtime=0)


def grid(symbol: str, days: list[date], nodes: int = 40) -> Rows:
    """Return an IVS table: both sides around the money, today's column names."""
    rows: Rows = []
    for day in days:
        for node in range(nodes):
            call = node % 2 == 0
            place = {"record_no": len(rows) + 1, "symbol": symbol, "exchange": "NASDAQ", "date": day.isoformat()}
            node_of = {"period": 30 + 30 * (node // 20), "strike": 50.0 + node, "out-of-the-money %": 5 * (node // 4)}
            delta = round((0.6 if call else -0.4) - node / 200, 4)
            rows.append({**place, **node_of, "Call/Put": "C" if call else "P", "IV": 0.3 + node / 1000, "delta": delta})
    return rows
