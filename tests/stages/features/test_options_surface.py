from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.market.calendar import sessions_between
from quanto.market.schema import CANONICAL
from quanto.stages.features.chain import Quotes, black_price, implied_volatility, smile_from_quotes
from quanto.stages.features.surface import surfaces

DATA = Path(__file__).parent / "data"
DAY = date(2023, 1, 3)
SESSIONS = sessions_between(DAY, date(2023, 1, 10))
Row = dict[str, object]


def _table(rows: list[Row]) -> pa.Table:
    empty: Row = dict.fromkeys(CANONICAL["options_surface"].names)
    lineage = {"vendor": "v", "vendors_seen": "v", "method": "only", "flags": "", "payload": "0", "payload_row": 0}
    full = [{**empty, "session": DAY, "symbol": "AAA", **lineage, "known_on": DAY, **row} for row in rows]
    return pa.Table.from_pylist(full, schema=CANONICAL["options_surface"])


def _chain(days: float, volatility: float = 0.25, forward: float = 100.0, discount: float = 0.99, **row: object) -> list[Row]:
    rows: list[Row] = []
    total = volatility * np.sqrt(days / 365)
    for strike in np.arange(60.0, 141.0, 2.5):
        for side in ("C", "P"):
            price = (
                discount * forward * float(black_price(np.array([np.log(strike / forward)]), np.array([total]), np.array([side == "C"]))[0])
            )
            if price > 0.02:
                quote = {"strike": float(strike), "side": side, "bid": price - 0.01, "ask": price + 0.01}
                rows.append({"tenor_days": days, **quote, **row})
    return rows


def _measures(rows: list[Row]) -> tuple[dict[str, float], dict[str, int]]:
    result = surfaces(_table(rows), SESSIONS, ["AAA"])
    return {name: float(values[0, 0]) for name, values in result.measures.items()}, result.rejected


def test_the_price_of_the_textbook_gives_its_volatility() -> None:
    # Hull: S 21, K 20, r 10 %, three months, call 1.875: 23.45 % (here to one decimal more).
    forward, discount = 21 * np.exp(0.025), np.exp(-0.025)
    price = np.array([1.875 / discount / forward])
    found = implied_volatility(price, np.array([np.log(20 / forward)]), np.array([0.25]), np.array([True]))
    assert found[0] == pytest.approx(0.2345, abs=5e-5)


@settings(deadline=None, max_examples=60)
@given(k=st.floats(-0.5, 0.5), volatility=st.floats(0.05, 3.0), years=st.floats(0.02, 3.0))
def test_inversion_undoes_pricing_out_of_the_money(k: float, volatility: float, years: float) -> None:
    call = np.array([k >= 0])
    price = black_price(np.array([k]), np.array([volatility * np.sqrt(years)]), call)
    if price[0] > 1e-9:
        assert implied_volatility(price, np.array([k]), np.array([years]), call)[0] == pytest.approx(volatility, rel=1e-6)


def test_a_price_outside_its_bounds_has_no_volatility() -> None:
    prices = np.array([-0.1, 0.0, 1.0, np.nan, 0.05])
    k = np.array([0.1, 0.1, 0.1, 0.1, -0.2])
    assert np.isnan(implied_volatility(prices, k, np.full(5, 0.25), np.full(5, True))).all()


def test_a_flat_chain_gives_its_volatility_at_every_tenor_and_no_skew() -> None:
    measures, rejected = _measures([row for days in (20, 45, 100) for row in _chain(days)])
    for tenor in (30, 60, 90):
        assert measures[f"atm_{tenor}"] == pytest.approx(0.25, abs=5e-4)
    assert measures["call_25_30"] == pytest.approx(0.25, abs=1e-3)
    assert measures["put_25_30"] == pytest.approx(0.25, abs=1e-3)
    assert rejected == {}


def test_tenors_are_linear_in_total_variance_and_never_extrapolated() -> None:
    measures, _ = _measures([*_chain(40, 0.40), *_chain(80, 0.30)])
    assert np.isnan(measures["atm_30"])
    assert np.isnan(measures["atm_90"])
    expected = np.sqrt((0.5 * 0.40**2 * 40 + 0.5 * 0.30**2 * 80) / 60)
    assert measures["atm_60"] == pytest.approx(expected, abs=1e-3)


def test_an_inverted_term_structure_is_ordinary_and_a_falling_total_variance_is_not() -> None:
    measures, rejected = _measures([*_chain(25, 0.50), *_chain(95, 0.30)])
    assert measures["atm_30"] > measures["atm_90"]
    assert rejected == {}
    measures, rejected = _measures([*_chain(25, 0.80), *_chain(95, 0.30)])
    assert np.isnan(measures["atm_60"])
    assert rejected == {"surface_with_calendar_arbitrage": 1}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bid": 0.0}, "no_bid"),
        ({"bid": 9.0, "ask": 8.0}, "crossed_quote"),
        ({"bid": 1.0, "ask": 9.0}, "wide_spread"),
        ({"bid": 20.0, "ask": 20.02}, "parity_residual"),
    ],
)
def test_a_bad_quote_is_left_out_and_counted(change: Row, reason: str) -> None:
    rows = [row for days in (25, 45) for row in _chain(days)]
    victim = next(row for row in rows if row["strike"] == 105.0 and row["side"] == "C")
    victim.update(change)
    measures, rejected = _measures(rows)
    assert measures["atm_30"] == pytest.approx(0.25, abs=1e-3)
    assert reason in rejected


def test_an_executable_butterfly_is_left_out_and_an_expiry_full_of_them_is_quarantined() -> None:
    rows = [row for days in (25, 45) for row in _chain(days) if not (row["strike"] == 110.0 and row["side"] == "P")]
    victim = next(row for row in rows if row["strike"] == 110.0)
    victim.update(bid=float(victim["bid"]) + 1.0, ask=float(victim["ask"]) + 1.0)  # type: ignore[arg-type]
    measures, rejected = _measures(rows)
    assert rejected == {"executable_arbitrage": 1}
    assert measures["atm_30"] == pytest.approx(0.25, abs=1e-3)
    for row in rows:
        lift = 0.6 * (row["tenor_days"] == 25 and float(row["strike"]) / 2.5 % 2 == 0)  # type: ignore[arg-type]
        row.update(bid=float(row["bid"]) + lift, ask=float(row["ask"]) + lift)  # type: ignore[arg-type]
    measures, rejected = _measures(rows)
    assert rejected["expiry_with_arbitrage"] == 1
    assert np.isnan(measures["atm_30"])


def test_an_expiry_without_pairs_or_of_a_few_days_is_not_used() -> None:
    rows = [*(row for row in _chain(25) if row["side"] == "C"), *_chain(45), *_chain(5)]
    measures, rejected = _measures(rows)
    assert np.isnan(measures["atm_30"])
    assert rejected["expiry_without_forward"] == 1
    assert rejected["expiry_too_short"] == len(_chain(5))


def test_a_vendor_that_gives_the_money_only_is_enough_for_level_and_slope() -> None:
    rows: list[Row] = []
    for tenor, call, put in ((30, 0.20, 0.22), (60, 0.21, 0.23), (90, 0.22, 0.24)):
        rows += [{"tenor_days": tenor, "side": "C", "delta": 0.5, "iv": call}, {"tenor_days": tenor, "side": "P", "delta": -0.5, "iv": put}]
    measures, rejected = _measures(rows)
    assert measures["atm_30"] == pytest.approx(0.21, abs=1e-3)
    assert measures["atm_90"] == pytest.approx(0.23, abs=1e-3)
    assert np.isnan(measures["call_25_30"])
    assert rejected == {}


def test_open_interest_and_volume_are_summed_by_side() -> None:
    rows = _chain(30)
    for row in rows:
        row["open_interest"], row["volume"] = (10.0, 1.0) if row["side"] == "C" else (20.0, None)
    measures, _ = _measures(rows)
    calls = sum(row["side"] == "C" for row in rows)
    assert measures["call_open_interest"] == 10 * calls
    assert measures["put_open_interest"] == 20 * (len(rows) - calls)
    assert measures["call_volume"] == calls
    assert np.isnan(measures["put_volume"])


def test_a_surface_has_the_same_bits_whatever_stands_in_other_sessions_and_symbols() -> None:
    later = SESSIONS[2].astype(object)
    rows = [*_chain(25, 0.3), *_chain(70, 0.31)]
    others = [*_chain(33, 0.5, session=later, known_on=later), *_chain(95, 0.2, symbol="BBB")]
    alone = surfaces(_table(rows), SESSIONS, ["AAA", "BBB"])
    among = surfaces(_table(rows + others), SESSIONS, ["AAA", "BBB"])
    for name, values in alone.measures.items():
        assert np.array_equal(values[0, 0], among.measures[name][0, 0], equal_nan=True), name
    assert among.known[2, 0] == (later - date(1970, 1, 1)).days


def test_the_latest_knowledge_of_its_rows_is_that_of_a_surface() -> None:
    rows = [*_chain(25), *_chain(45)]
    rows[3]["known_on"] = DAY + timedelta(days=1)
    assert surfaces(_table(rows), SESSIONS, ["AAA"]).known[0, 0] == (DAY + timedelta(days=1) - date(1970, 1, 1)).days


def test_an_empty_table_has_no_surface() -> None:
    result = surfaces(_table([]), SESSIONS, ["AAA"])
    assert all(np.isnan(values).all() for values in result.measures.values())
    assert np.isnan(result.known).all()


def test_a_real_chain_gives_back_its_forwards_and_volatilities() -> None:
    chain = pd.read_csv(DATA / "spy_chain_2022_07_15.csv")
    expiry = chain.groupby("years").ngroup().to_numpy()
    k = np.log(chain["strike"] / chain["forward"]).to_numpy()
    parts = []
    for call in (True, False):
        side = np.full(len(chain), call)
        scale = (chain["discount"] * chain["forward"]).to_numpy()
        bid, ask = (np.round(scale * black_price(k, chain[name] * np.sqrt(chain["years"]), side), 2) for name in ("bid_iv", "ask_iv"))
        parts.append((expiry, chain["years"].to_numpy(), chain["strike"].to_numpy(), bid, ask, side))
    rejected: Counter[str] = Counter()
    smile = smile_from_quotes(Quotes(*(np.concatenate(columns) for columns in zip(*parts, strict=True))), 4, rejected)
    # Delayed quotes of different strikes are not of one instant: some offer what nobody could trade.
    assert set(rejected) == {"executable_arbitrage"}
    assert rejected["executable_arbitrage"] < 0.2 * len(chain)
    for number in range(4):
        mine, theirs = smile.expiry == number, expiry == number
        expected = np.interp(0.0, k[theirs], 0.5 * (chain["bid_iv"] + chain["ask_iv"])[theirs])
        assert np.interp(0.0, smile.moneyness[mine], smile.volatility[mine]) == pytest.approx(expected, abs=1e-4)


def test_a_real_vendor_surface_gives_its_own_points_and_nearly_its_own_money() -> None:
    grid = pd.read_csv(DATA / "vendor_surface_2023.csv", parse_dates=["date"])
    rows: list[Row] = [
        {"session": day.date(), "known_on": day.date(), "symbol": str(name), "tenor_days": float(tenor), "side": "C" if delta > 0 else "P",
         "delta": delta / 100, "strike": strike, "iv": volatility}
        for name, day, tenor, delta, strike, _, volatility in grid.itertuples(index=False)
    ]  # fmt: skip
    names = sorted(set(grid["id"].astype(str)))
    result = surfaces(_table(rows), SESSIONS, names)
    assert np.isfinite(result.measures["atm_90"][:3]).all()
    for (day, name), part in grid[grid["days"] == 30].groupby(["date", "id"]):
        place = int(np.searchsorted(SESSIONS, np.datetime64(day, "D"))), names.index(str(name))
        call = part.loc[part["delta"] == 25, "impl_volatility"].item()
        assert result.measures["call_25_30"][place] == pytest.approx(call, abs=1e-9)
        wing = part[part["delta"].abs() <= 50].sort_values("k")
        money = np.interp(0.0, np.log(wing["k"] / wing["f"]), wing["impl_volatility"])
        # Its deltas are of American options with dividends; ours of the forward.
        assert result.measures["atm_30"][place] == pytest.approx(money, abs=0.01)
