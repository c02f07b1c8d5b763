"""IVolatility against the fake: inline answers, file jobs, every form of a body, both spellings of columns."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import pytest
from fakes.clocks import FastClock
from fakes.ivolatility import IVolatilityFake, Rows, grid
from fakes.landing import MemoryLanding
from fakes.scenarios import KEYS
from fakes.server import Reply, status

from quanto.market.calendar import as_date, sessions_between
from quanto.stages.ingest.errors import AuthenticationError, ContractError, JobError, NotEntitledError, UndecodableError
from quanto.stages.ingest.transport import TransportSettings
from quanto.stages.ingest.vendor import IngestRequest, Parsed
from quanto.stages.ingest.vendors.ivolatility import IVolatilityOptions, IVolatilityVendor
from quanto.stages.ingest.vendors.ivolatility_answers import column, first_answer

DAYS = [as_date(day) for day in sessions_between(date(2025, 12, 22), date(2026, 1, 9))]
AS_OF = date(2026, 1, 12)


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


def ivx(names: tuple[str, ...] = ("30d IV Call", "30d IV Put", "30d IV Mean", "90d IV Mean")) -> Rows:
    return [
        {"record_no": 1, "symbol": "ZZZ", "exchange": "NASDAQ", "date": f"{day} 00:00:00.0", "price": 50.0, **dict.fromkeys(names, 0.3396)}
        for day in DAYS
    ]


def prices() -> Rows:
    fields = {"open": 50.0, "high": 51.0, "low": 49.0, "close": 50.5, "volume": "998120.0", "unadjusted_close": 101.0}
    return [{"symbol": "ZZZ", "exchange": "NASDAQ", "date": day.isoformat(), **fields} for day in DAYS]


@contextmanager
def serving(tables: dict[str, Rows], **options: object) -> Iterator[tuple[IVolatilityFake, IVolatilityVendor]]:
    with IVolatilityFake(tables) as fake:
        assert isinstance(fake, IVolatilityFake)
        settings = TransportSettings(requests=1000, attempts=3)
        given = IVolatilityOptions(base_url=fake.base_url, transport=settings.model_dump(), poll_seconds=0.01, **options)  # type: ignore[arg-type]
        yield fake, IVolatilityVendor("ivolatility", given, FastClock())


def ingest(vendor: IVolatilityVendor, domain: str, landing: MemoryLanding | None = None, symbol: str = "ZZZ") -> list[Parsed]:
    store = landing or MemoryLanding()
    request = IngestRequest(domain, (symbol,), DAYS[0], DAYS[-1], AS_OF)
    return [vendor.parse(shard, vendor.fetch(shard, store)) for shard in vendor.plan(request)]


def rows_of(parsed: list[Parsed]) -> list[dict[str, object]]:
    return [row for item in parsed for row in item.table.to_pylist()]


SPELLINGS = (
    ("30d IV Call", "30d IV Put", "30d IV Mean"),
    ("30d_iv_call", "30d_iv_put", "30d_iv_mean"),
    ("30D-IV-CALL", "30d  iv put", "30d IV (Mean)"),
)


@pytest.mark.parametrize("names", SPELLINGS)
def test_columns_are_matched_in_every_spelling(names: tuple[str, ...]) -> None:
    with serving({"/equities/eod/ivx": ivx(names)}) as (_, vendor):
        rows = rows_of(ingest(vendor, "options_surface"))
    assert len(rows) == 3 * len(DAYS)
    assert {(row["side"], row["delta"], row["tenor_days"]) for row in rows} == {("C", 0.5, 30.0), ("P", -0.5, 30.0), ("M", 0.5, 30.0)}
    assert {row["iv"] for row in rows} == {0.3396}


def test_a_tenor_that_does_not_exist_is_no_row() -> None:
    table = ivx()
    table[0]["90d IV Mean"] = None
    table[1]["90d IV Mean"] = ""
    with serving({"/equities/eod/ivx": table}) as (_, vendor):
        parsed = ingest(vendor, "options_surface")
    assert len(rows_of(parsed)) == 4 * len(DAYS) - 2
    assert not [item for part in parsed for item in part.rejected]


def test_percent_where_fractions_are_declared_is_refused_and_can_be_declared() -> None:
    table = [{**row, "30d IV Mean": 33.96} for row in ivx(("30d IV Mean",))]
    with serving({"/equities/eod/ivx": table}) as (_, vendor), pytest.raises(ContractError, match="percent"):
        ingest(vendor, "options_surface")
    with serving({"/equities/eod/ivx": table}, iv_unit="percent") as (_, vendor):
        assert rows_of(ingest(vendor, "options_surface"))[0]["iv"] == pytest.approx(0.3396)


def test_a_grid_comes_as_a_job_and_is_replayed_without_asking() -> None:
    landing = MemoryLanding()
    with serving({"/equities/eod/ivs": grid("ZZZ", DAYS)}, surface="ivs") as (fake, vendor):
        first = rows_of(ingest(vendor, "options_surface", landing))
        assert len(first) == 40 * len(DAYS)
        assert len([call for call in fake.calls if "/data/info/" in call.path]) == 4
        assert all(call.headers["apikey"] == "ivol-key" for call in fake.calls)
        asked = len(fake.calls)
        landing.offline = True
        assert rows_of(ingest(vendor, "options_surface", landing)) == first
        assert len(fake.calls) == asked


def test_a_chain_gives_a_row_per_contract_and_trusts_the_contracts_symbol() -> None:
    quote = {"ask": "2.65", "bid": "2.55", "iv": "0.3312", "delta": "0.51", "volume": "311", "open interest": "1822"}
    contract = {"symbol": "ZZZ", "exchange": "NASDAQ", "option symbol": "ZZZ   260116C00052500", "strike": "52.5", "Call/Put": "C"}
    # Listed on the Saturday after; the symbol names the Friday.
    table: Rows = [{**contract, "date": f"{day} 00:00:00", "expiration": "2026-01-17", **quote} for day in DAYS]
    table[1] |= {"bid": "", "ask": "", "delta": ""}
    table[2] |= {"option symbol": "ZZZ   260116P00052500", "Call/Put": "P", "delta": "-0.49"}
    with serving({"/equities/eod/options-rawiv": table}, surface="options-rawiv") as (fake, vendor):
        fake.inline_rows = 3  # a file job
        rows = rows_of(ingest(vendor, "options_surface"))
    assert len(rows) == len(DAYS)
    assert {row["tenor_days"] for row in rows} == {float((date(2026, 1, 16) - day).days) for day in DAYS}
    names = ("side", "strike", "iv", "bid", "ask", "delta", "volume", "open_interest")
    assert [rows[0][name] for name in names] == ["C", 52.5, 0.3312, 2.55, 2.65, 0.51, 311.0, 1822.0]
    assert [rows[1][name] for name in ("bid", "ask", "delta")] == [None, None, None]
    assert [rows[2][name] for name in ("side", "delta")] == ["P", -0.49]


def test_a_kill_inside_a_job_starts_it_anew() -> None:
    class Dying(MemoryLanding):
        puts = 0

        def put(self, *args: object, **kwargs: object):  # type: ignore[no-untyped-def]
            self.puts += 1
            if self.puts == 2:
                raise KeyboardInterrupt
            return super().put(*args, **kwargs)  # type: ignore[arg-type]

    landing = Dying()
    with serving({"/equities/eod/ivs": grid("ZZZ", DAYS)}, surface="ivs") as (_, vendor):
        with pytest.raises(KeyboardInterrupt):
            ingest(vendor, "options_surface", landing)
        assert len(rows_of(ingest(vendor, "options_surface", landing))) == 40 * len(DAYS)


def test_fewer_records_than_counted_are_not_taken_for_all() -> None:
    with serving({"/equities/eod/ivs": grid("ZZZ", DAYS)}, surface="ivs") as (fake, vendor):

        def drop_lines(reply: Reply) -> Reply:
            lines = gzip.decompress(reply.body).split(b"\n")
            return Reply(gzip.compress(b"\n".join(lines[:100]) + b"\n"), content_type="text/csv")

        fake.fault(drop_lines, "/download/", (1,))
        assert len(rows_of(ingest(vendor, "options_surface"))) == 40 * len(DAYS)


def test_a_job_with_nothing_in_it_ends_empty() -> None:
    with serving({"/equities/eod/ivs": grid("ZZZ", DAYS)}, surface="ivs") as (fake, vendor):
        done = json.dumps([{"meta": {"status": "COMPLETE", "recordsCount": 0}, "data": []}]).encode()
        fake.fault(lambda _: Reply(done), "/data/info/", None)
        assert rows_of(ingest(vendor, "options_surface")) == []


def test_a_failed_job_names_the_state() -> None:
    with serving({"/equities/eod/ivs": grid("ZZZ", DAYS)}, surface="ivs") as (fake, vendor):
        fake.fails = True
        with pytest.raises(JobError, match="FAILED"):
            ingest(vendor, "options_surface")


def test_no_data_is_landed_as_an_answer_whether_204_or_in_words() -> None:
    for change in (lambda reply: reply, status(204)):
        landing = MemoryLanding()
        with serving({"/equities/eod/stock-prices": prices()}) as (fake, vendor):
            fake.fault(change, calls=None)
            assert rows_of(ingest(vendor, "equity_ohlcv", landing, symbol="NONE")) == []
            assert len(landing.stored) == 2
            ingest(vendor, "equity_ohlcv", landing, symbol="NONE")
            assert len(fake.calls) == 2


def as_csv(reply: Reply) -> bytes:
    rows = json.loads(reply.body)["data"]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def zipped(text: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("x.csv", text)
    return out.getvalue()


@pytest.mark.parametrize(
    "form",
    [
        lambda reply: Reply(reply.body, content_type="text/plain;charset=UTF-8"),
        lambda reply: Reply(json.dumps(json.loads(reply.body)["data"]).encode()),
        lambda reply: Reply(as_csv(reply), content_type="text/csv"),
        lambda reply: Reply(gzip.compress(as_csv(reply)), content_type="application/octet-stream"),
        lambda reply: Reply(bz2.compress(as_csv(reply)), content_type="application/x-bzip"),
        lambda reply: Reply(zipped(as_csv(reply)), content_type="application/zip"),
    ],
    ids=["text", "bare list", "csv", "gzip", "bzip2", "zip"],
)
def test_every_form_of_an_answer_gives_the_same_rows(form) -> None:  # type: ignore[no-untyped-def]
    with serving({"/equities/eod/stock-prices": prices()}) as (_, vendor):
        plain = rows_of(ingest(vendor, "equity_ohlcv"))
    with serving({"/equities/eod/stock-prices": prices()}) as (fake, vendor):
        fake.fault(form, calls=None)
        other = rows_of(ingest(vendor, "equity_ohlcv"))
    strip = [{name: value for name, value in row.items() if name != "payload"} for row in plain]
    assert strip == [{name: value for name, value in row.items() if name != "payload"} for row in other]
    assert len(strip) == len(DAYS)


@pytest.mark.parametrize("wrong", [b"maintenance, please wait", b"soon", b"", b"<html>x</html>", b'{"status":1', b"BZh91AY&SY\x00"])
def test_what_is_no_answer_is_never_read_as_no_rows(wrong: bytes) -> None:
    with serving({"/equities/eod/stock-prices": prices()}) as (fake, vendor):
        fake.fault(lambda _: Reply(wrong), calls=None)
        with pytest.raises((UndecodableError, ContractError, Exception)) as caught:
            ingest(vendor, "equity_ohlcv")
        assert type(caught.value).__module__.startswith("quanto.")


def test_an_unquoted_comma_in_a_csv_row_spoils_that_row_alone() -> None:
    def comma(reply: Reply) -> Reply:
        lines = as_csv(reply).split(b"\n")
        lines[3] = lines[3].replace(b"NASDAQ", b"Acme, Inc. NASDAQ")
        return Reply(b"\n".join(lines), content_type="text/csv")

    with serving({"/equities/eod/stock-prices": prices()}) as (fake, vendor):
        fake.fault(comma, calls=(2,))
        parsed = ingest(vendor, "equity_ohlcv")
    assert len(rows_of(parsed)) == len(DAYS) - 1
    assert "fields" in next(item.reason for part in parsed for item in part.rejected)


def test_prices_can_be_brought_to_the_unadjusted_close() -> None:
    with serving({"/equities/eod/stock-prices": prices()}, prices="unadjusted") as (_, vendor):
        row = rows_of(ingest(vendor, "equity_ohlcv"))[0]
    assert (row["open"], row["close"], row["basis"]) == (100.0, 101.0, "raw")


def test_one_of_several_listings_is_chosen_by_configuration() -> None:
    both = [*prices(), *({**row, "exchange": "LSE", "close": 1.0} for row in prices())]
    with serving({"/equities/eod/stock-prices": both}, exchanges=("NASDAQ",)) as (_, vendor):
        rows = rows_of(ingest(vendor, "equity_ohlcv"))
    assert {row["close"] for row in rows} == {50.5}
    assert len(rows) == len(DAYS)


def test_a_tariff_without_the_endpoint_is_told_from_a_wrong_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({}) as (_, vendor), pytest.raises(NotEntitledError, match="No permission"):
        ingest(vendor, "options_surface")
    monkeypatch.setenv("IVOLATILITY_API_KEY", "wrong")
    with serving({}) as (_, vendor), pytest.raises(AuthenticationError, match="Invalid API key"):
        ingest(vendor, "options_surface")


def test_the_sheets_example_is_read() -> None:
    body = (
        b'{"status":{"executionTime":271,"recordsFound":1,"code":"DONE","urlForDetails":null},"query":{"requestUUID":null},'
        b'"data":[{"record_no":1,"symbol":"ZZZ","exchange":"NASDAQ","date":"2026-01-06","open":50.4,"high":51.0,"low":50.1,"close":50.8,'
        b'"volume":998120.0,"unadjusted_close":101.6}]}'
    )
    assert first_answer(200, body).rows is not None
    assert [column(name) for name in ("30d IV Call", "out-of-the-money_%", "Call/Put", "Adjusted close")] == [
        "30d_iv_call", "out_of_the_money", "call_put", "adjusted_close",
    ]  # fmt: skip
