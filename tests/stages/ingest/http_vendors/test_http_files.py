"""Files of any layout, by configuration."""

from __future__ import annotations

import gzip
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes.landing import MemoryLanding

from quanto.core.config import load_section
from quanto.core.errors import ConfigError, VendorError
from quanto.stages.ingest.errors import ContractError, NotFoundError, TruncatedError
from quanto.stages.ingest.landing import LandingStore
from quanto.stages.ingest.vendor import IngestRequest, Parsed
from quanto.stages.ingest.vendors.files import FileOptions, FileVendor

COLUMNS = {"session": "Date", "open": "Open", "high": "High", "low": "Low", "close": "Close", "volume": "Volume"}
CSV = "Date,Open,High,Low,Close,Volume\n2026-01-05,50,51,49,50.5,1000\n2026-01-06,51,52,50,51.5,1100\n"


def vendor(tmp_path: Path, **options: object) -> FileVendor:
    raw = {"path": "{symbol}.csv", "columns": COLUMNS, **options}
    return FileVendor("own", load_section("own", raw, FileOptions), tmp_path)


def ingest(source: FileVendor, *symbols: str, domain: str = "equity_ohlcv") -> list[Parsed]:
    request = IngestRequest(domain, symbols or ("ZZZ",), date(2026, 1, 2), date(2026, 1, 9), date(2026, 1, 12))
    return [source.parse(shard, source.fetch(shard, MemoryLanding())) for shard in source.plan(request)]


def rows_of(parsed: list[Parsed]) -> list[dict[str, object]]:
    return [row for item in parsed for row in item.table.to_pylist()]


def test_a_csv_per_symbol(tmp_path: Path) -> None:
    (tmp_path / "ZZZ.csv").write_text(CSV)
    rows = rows_of(ingest(vendor(tmp_path)))
    assert [(str(row["session"]), row["symbol"], row["close"], row["basis"]) for row in rows] == [
        ("2026-01-05", "ZZZ", 50.5, "raw"),
        ("2026-01-06", "ZZZ", 51.5, "raw"),
    ]


def dated(first: str, second: str) -> str:
    return CSV.replace("2026-01-06", second).replace("2026-01-05", first)


NEW_YORK = {"zone": "America/New_York"}
CENTS = CSV.replace("50,51,49,50.5", "5000,5100,4900,5050").replace("51,52,50,51.5", "5100,5200,5000,5150")
LAYOUTS = {
    "delimiter": (CSV.replace(",", ";"), {"delimiter": ";"}),
    "format": (dated("05/01/2026", "06/01/2026"), {"dates": "%d/%m/%Y"}),
    "seconds": (dated("1767589200", "1767675600"), {"dates": "s", **NEW_YORK}),
    "nanoseconds": (dated("1767589200000000000", "1767675600000000000"), {"dates": "ns", **NEW_YORK}),
    "zone": (dated("2026-01-06T02:00:00Z", "2026-01-07T02:00:00Z"), NEW_YORK),
    "cents": (CENTS, {"scale": dict.fromkeys(("open", "high", "low", "close"), 0.01)}),
}


@pytest.mark.parametrize(("text", "options"), LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_are_configuration(tmp_path: Path, text: str, options: dict[str, object]) -> None:
    (tmp_path / "ZZZ.csv").write_text(text)
    row = rows_of(ingest(vendor(tmp_path, **options)))[0]
    assert (str(row["session"]), row["close"]) == ("2026-01-05", pytest.approx(50.5))


def test_one_file_of_many_symbols_gives_those_that_were_asked(tmp_path: Path) -> None:
    lines = [f"{symbol},{line}" for line in CSV.splitlines()[1:] for symbol in ("ZZZ", "YYY", "XXX")]
    (tmp_path / "all.csv.gz").write_bytes(gzip.compress("\n".join([f"Ticker,{CSV.splitlines()[0]}", *lines]).encode()))
    parsed = ingest(vendor(tmp_path, path="all.csv.gz", columns={**COLUMNS, "symbol": "Ticker"}), "ZZZ", "YYY")
    assert sorted({str(row["symbol"]) for row in rows_of(parsed)}) == ["YYY", "ZZZ"]
    assert parsed[0].notes == ("2 rows of other names or dates left out",)


def test_a_file_per_year(tmp_path: Path) -> None:
    (tmp_path / "ZZZ-2026.csv").write_text(CSV)
    assert len(rows_of(ingest(vendor(tmp_path, path="{symbol}-{year}.csv")))) == 2


@pytest.mark.parametrize("kind", ["date", "stamp"])
def test_parquet_with_dates_or_stamps(tmp_path: Path, kind: str) -> None:
    days = [date(2026, 1, 5), date(2026, 1, 6)]
    stamps = [datetime(2026, 1, day, 5, tzinfo=UTC) for day in (5, 6)]
    table = pa.table(
        {"Date": days if kind == "date" else stamps, **{name: [50.0, 51.0] for name in ("Open", "High", "Low", "Close", "Volume")}}
    )
    pq.write_table(table, tmp_path / "ZZZ.parquet")
    rows = rows_of(ingest(vendor(tmp_path, path="{symbol}.parquet", format="parquet", zone="America/New_York")))
    assert [row["session"] for row in rows] == days


def test_adjusted_prices_carry_their_basis_and_its_date(tmp_path: Path) -> None:
    (tmp_path / "ZZZ.csv").write_text(CSV)
    row = rows_of(ingest(vendor(tmp_path, basis="split", volume_basis="split")))[0]
    assert (row["basis"], row["volume_basis"], row["basis_as_of"]) == ("split", "split", date(2026, 1, 12))


def test_actions_levels_and_surfaces_are_tables_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("s,d,k,r,c\nZZZ,2026-01-06,split,4,\nZZZ,2026-01-07,cash_dividend,,0.5\n")
    columns = {"symbol": "s", "ex_date": "d", "kind": "k", "ratio": "r", "cash_usd": "c"}
    rows = rows_of(ingest(vendor(tmp_path, path="a.csv", columns=columns, known_after="session_before"), domain="corporate_actions"))
    assert [(row["kind"], row["ratio"], row["cash_usd"], str(row["known_on"])) for row in rows] == [
        ("split", 4.0, None, "2026-01-05"),
        ("cash_dividend", None, 0.5, "2026-01-06"),
    ]
    (tmp_path / "v.csv").write_text("d,v\n2026-01-05,14.32\n")
    shape = {"columns": {"session": "d", "value": "v"}, "constants": {"series": "VIX", "unit": "fraction"}, "scale": {"value": 0.01}}
    level = vendor(tmp_path, path="v.csv", known_after="next_session", **shape)
    row = rows_of(ingest(level, "VIX", domain="index_level"))[0]
    assert (row["value"], row["unit"], str(row["known_on"])) == (pytest.approx(0.1432), "fraction", "2026-01-06")
    (tmp_path / "o.csv").write_text("d,t,s,i\n2026-01-05,30,C,0.33\n")
    grid = vendor(tmp_path, path="o.csv", columns={"session": "d", "tenor_days": "t", "side": "s", "iv": "i"}, constants={"symbol": "ZZZ"})
    assert rows_of(ingest(grid, domain="options_surface"))[0]["iv"] == 0.33


def test_bad_rows_are_rejected_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "ZZZ.csv").write_text(CSV + "soon,1,1,1,1,1\n2026-01-07,,1,1,1,1\n2026-01-08,1,1,1,1,1,9\n")
    parsed = ingest(vendor(tmp_path))
    assert len(rows_of(parsed)) == 2
    assert [item.payload_row for item in parsed[0].rejected] == [2, 3, 4]


WRONG_FILES = [
    (b"Day,Open\n1,2\n", ContractError),
    (b"", VendorError),
    (b"Date,Open\n", ContractError),
    (gzip.compress(CSV.encode(), mtime=0)[:-9], TruncatedError),
]


@pytest.mark.parametrize(("content", "kind"), WRONG_FILES)
def test_a_file_that_is_not_what_was_declared_fails_its_shard(tmp_path: Path, content: bytes, kind: type[Exception]) -> None:
    (tmp_path / "ZZZ.csv").write_bytes(content)
    with pytest.raises(kind):
        ingest(vendor(tmp_path))


def test_a_missing_file_names_its_path(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"ZZZ\.csv"):
        ingest(vendor(tmp_path))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": {"sesion": "Date"}}, "sesion is no column"),
        ({"dates": "ms"}, "name the zone"),
        ({"zone": "Mars/Olympus"}, "unknown"),
        ({"constants": {"open": "1"}}, "both a column and a constant"),
        ({"basis": "dividend"}, "basis"),
    ],
)
def test_a_contradictory_layout_is_refused_at_load(tmp_path: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        vendor(tmp_path, **options)


def test_a_changed_file_is_read_anew_and_its_request_names_its_bytes(tmp_path: Path) -> None:
    own, landing = vendor(tmp_path), LandingStore(tmp_path / "landing", date(2026, 1, 12))
    (shard,) = own.plan(IngestRequest("equity_ohlcv", ("ZZZ",), date(2026, 1, 2), date(2026, 1, 9), date(2026, 1, 12)))
    closes = []
    for close in ("50.5", "50.6"):
        (tmp_path / "ZZZ.csv").write_text(CSV.replace("50.5", close))
        payloads = own.fetch(shard, landing)
        assert payloads[0].request["sha256"] == payloads[0].sha256
        closes.append(own.parse(shard, payloads).table["close"].to_pylist()[0])
    assert closes == [50.5, 50.6]
    assert len(list(landing.restatements())) == 1


def test_offline_a_file_is_replayed_as_it_was_last_read(tmp_path: Path) -> None:
    own, online = vendor(tmp_path), LandingStore(tmp_path / "landing", date(2026, 1, 12))
    (shard,) = own.plan(IngestRequest("equity_ohlcv", ("ZZZ",), date(2026, 1, 2), date(2026, 1, 9), date(2026, 1, 12)))
    (tmp_path / "ZZZ.csv").write_text(CSV)
    read = own.fetch(shard, online)
    offline = LandingStore(tmp_path / "landing", date(2026, 1, 12), offline=True)
    for change in (lambda path: path.write_text("other"), lambda path: path.unlink()):
        change(tmp_path / "ZZZ.csv")
        assert own.fetch(shard, offline) == read
    with pytest.raises(NotFoundError):
        own.fetch(shard, online)
