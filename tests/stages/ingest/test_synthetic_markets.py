"""Synthetic markets: seeded, stable, traded prices that earn the market's returns, and answers that are true."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.core.errors import ConfigError
from quanto.market.calendar import DateArray, sessions_between
from quanto.market.known_answers import HOLDING, KELLY, REGIMES, RegimeMarket
from quanto.market.panel import build_panel
from quanto.stages.ingest.landing import LandingStore
from quanto.stages.ingest.validate import validate
from quanto.stages.ingest.vendor import IngestRequest
from quanto.stages.ingest.vendors.synthetic import SyntheticOptions, SyntheticVendor
from quanto.stages.ingest.vendors.synthetic_actions import as_traded
from quanto.stages.ingest.vendors.synthetic_markets import CASH_PER_SESSION, FAMILIES, Market

FloatArray = npt.NDArray[np.float64]

NAMES = ("AAA", "BBB", "CCC", "DDD", "EEE", "FFF")
MANY = (*NAMES, *(f"N{number:02d}" for number in range(30)))
AS_OF = date(2026, 1, 2)
FIELDS = ("open", "high", "low", "close", "volume")


def names_of(family: str) -> tuple[str, ...]:
    return MANY[: FAMILIES[family].symbols or len(NAMES)]


def market(family: str, years: int = 20, seed: int = 3) -> tuple[Market, DateArray]:
    sessions = sessions_between(date(1990, 1, 2), date(1990 + years, 1, 2))
    return FAMILIES[family].generate(seed, names_of(family), sessions), sessions


def vendor(family: str, actions: bool = True, seed: int = 3) -> SyntheticVendor:
    return SyntheticVendor(
        "synthetic", SyntheticOptions(family=family, seed=seed, market_start=date(2000, 1, 3), corporate_actions=actions)
    )


def table(source: SyntheticVendor, domain: str, names: tuple[str, ...], start: date, end: date, root: Path) -> pa.Table:
    (shard,) = source.plan(IngestRequest(domain, names, start, end, AS_OF))
    return source.parse(shard, source.fetch(shard, LandingStore(root, AS_OF))).table


def later_open_returns(opens: FloatArray) -> FloatArray:
    """Return what the decision after the close of t earns: from the open of t+1 to the open of t+2."""
    return opens[2:] / opens[1:-1] - 1


def t_statistic(values: FloatArray) -> float:
    return float(values.mean() / values.std() * np.sqrt(len(values)))


@pytest.mark.parametrize("family", list(FAMILIES))
def test_bars_are_possible_and_positive(family: str) -> None:
    found, _ = market(family, years=5)
    assert all(np.isfinite(getattr(found, name)).all() and (getattr(found, name) > 0).all() for name in (*FIELDS, "index"))
    assert (found.high >= np.maximum(found.open, found.close)).all()
    assert (found.low <= np.minimum(found.open, found.close)).all()


@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_longer_market_begins_with_the_shorter_one(family: str) -> None:
    short, sessions = market(family, years=3)
    long, _ = market(family, years=6)
    for name in (*FIELDS, "index"):
        assert np.array_equal(getattr(long, name)[: len(sessions)], getattr(short, name))


@pytest.mark.parametrize("family", list(FAMILIES))
def test_the_seed_is_the_market(family: str) -> None:
    assert np.array_equal(market(family, 2)[0].close, market(family, 2)[0].close)
    assert not np.array_equal(market(family, 2)[0].close, market(family, 2, seed=4)[0].close)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_splits_and_dividends_leave_total_returns_as_they_were(seed: int) -> None:
    found, _ = market("planted_edge_v1", years=6, seed=seed)
    traded, actions = as_traded(found, NAMES)
    split, cash = np.ones_like(found.close), np.zeros_like(found.close)
    for action in actions:
        column = NAMES.index(action.symbol)
        if action.kind == "split":
            split[action.session, column] *= action.ratio or np.nan
        else:
            cash[action.session, column] += action.cash_usd or np.nan
    assert {action.kind for action in actions} >= {"cash_dividend"}
    # DESIGN 5: at the open of the ex-date shares are multiplied, then cash receives pre-split shares times the dividend.
    reinvested = (traded.close[1:] * split[1:]) / (traded.close[:-1] - cash[1:])
    np.testing.assert_allclose(reinvested, found.close[1:] / found.close[:-1], rtol=1e-9)


def test_high_priced_symbols_split() -> None:
    found, _ = market("noise_v1", years=20)
    traded, actions = as_traded(found, NAMES)
    assert any(action.kind == "split" for action in actions)
    assert traded.close.max() < 4 * 150


@pytest.mark.parametrize("family", list(FAMILIES))
def test_the_vendor_gives_sound_tables_of_the_asked_dates(family: str, tmp_path: Path) -> None:
    source, names = vendor(family), names_of(family)
    start, end = date(2001, 3, 1), date(2003, 3, 3)
    bars = validate("equity_ohlcv", "synthetic", table(source, "equity_ohlcv", names, start, end, tmp_path))
    assert (len(bars.quarantine), bars.merged) == (0, 0)
    assert len(bars.table) == len(sessions_between(start, end)) * len(names)
    levels = validate("index_level", "synthetic", table(source, "index_level", ("SPX", "TBILL_1M", "VIX"), start, end, tmp_path))
    assert len(levels.quarantine) == 0
    counts = {row["values"]: row["counts"] for row in pc.value_counts(levels.table["series"]).to_pylist()}
    assert counts.pop("VIX", len(sessions_between(start, end))) == len(sessions_between(start, end))
    assert counts == {"SPX": len(sessions_between(start, end)), "TBILL_1M": 24}
    actions = validate("corporate_actions", "synthetic", table(source, "corporate_actions", names, start, end, tmp_path))
    assert len(actions.quarantine) == 0
    assert len(actions.table) >= 7 * len(names)
    assert all(row["known_on"] < row["ex_date"] for row in actions.table.to_pylist())


def test_the_actions_table_and_the_bars_fit_together(tmp_path: Path) -> None:
    source = vendor("noise_v1")
    start, end = date(2000, 1, 3), date(2006, 1, 3)
    bars = table(source, "equity_ohlcv", NAMES, start, end, tmp_path)
    actions = table(source, "corporate_actions", NAMES, start, AS_OF, tmp_path)
    panel = build_panel(bars, actions, sessions_between(start, end), NAMES)
    plain = table(vendor("noise_v1", actions=False), "equity_ohlcv", NAMES, start, end, tmp_path)
    total = build_panel(plain, actions.slice(0, 0), panel.sessions, NAMES)
    earned = panel.close[1:] * panel.split[1:] / (panel.close[:-1] - panel.dividend_usd[1:])
    np.testing.assert_allclose(earned, total.close[1:] / total.close[:-1], rtol=1e-6)
    assert (panel.dividend_usd > 0).sum() > 100


def test_a_family_of_one_symbol_refuses_two() -> None:
    request = IngestRequest("equity_ohlcv", ("AAA", "BBB"), date(2001, 1, 2), date(2001, 2, 1), AS_OF)
    with pytest.raises(ConfigError, match=r"single_asset_v1 takes 1 symbol\(s\), found 2"):
        vendor("single_asset_v1").plan(request)


def test_before_the_market_begins_there_is_nothing() -> None:
    assert vendor("noise_v1").plan(IngestRequest("equity_ohlcv", NAMES, date(1999, 1, 4), date(1999, 2, 1), AS_OF)) == ()


def test_in_the_noise_market_last_months_winners_earn_nothing_more() -> None:
    statistics = [t_statistic(_momentum("noise_v1", seed)) for seed in range(50)]
    assert abs(np.mean(statistics)) < 3 / np.sqrt(50)
    assert 0.7 < np.std(statistics) < 1.3


def test_in_the_planted_market_last_months_winners_earn_the_edge_in_every_seed() -> None:
    for seed in range(8):
        excess = _momentum("planted_edge_v1", seed)
        assert t_statistic(excess) > 4
        assert excess.mean() * 252 > 0.08


def _momentum(family: str, seed: int) -> FloatArray:
    """Return the excess over equal weight of holding the best three of six by the last 21 sessions."""
    found, _ = market(family, years=13, seed=seed)
    close = np.log(found.close)
    signal = (close[21:] - close[:-21])[:-2]
    weights = (np.argsort(np.argsort(-signal, axis=1), axis=1) < 3) / 3
    returns = later_open_returns(found.open)[21:]
    excess: FloatArray = (weights * returns).sum(axis=1) - returns.mean(axis=1)
    return excess


def test_in_the_noise_market_no_fixed_exposure_grows_faster_than_all_of_it() -> None:
    growth = {exposure: np.mean([_growth("noise_v1", exposure, seed) for seed in range(30)]) for exposure in (0.0, 0.5, 1.0, 1.5, 2.0)}
    assert max(growth, key=lambda exposure: growth[exposure]) in (0.5, 1.0, 1.5)
    assert growth[1.0] > growth[0.0]
    assert growth[1.0] > growth[2.0]


def test_the_single_asset_grows_fastest_at_half_exposure() -> None:
    growth = {exposure: np.mean([_growth("single_asset_v1", exposure, seed) for seed in range(30)]) for exposure in (0.0, 0.5, 1.0)}
    assert growth[0.5] > growth[0.0]
    assert growth[0.5] > growth[1.0]


def _growth(family: str, exposure: float, seed: int) -> float:
    found, _ = market(family, years=20, seed=seed)
    returns = (found.close[1:] / found.close[:-1] - 1).mean(axis=1)
    return float(np.log(1 + exposure * (returns - CASH_PER_SESSION) + CASH_PER_SESSION).mean())


def test_in_the_switching_market_trailing_volatility_tells_when_to_leave() -> None:
    for seed in range(6):
        found, _ = market("regime_switching_v1", years=13, seed=seed)
        index = np.diff(np.log(found.index))
        volatility = np.sqrt(np.convolve(index**2, np.ones(21) / 21, "valid") * 252)  # known at the close of session 21 + i
        excess = (later_open_returns(found.open).mean(axis=1) - CASH_PER_SESSION)[21:]
        calm = volatility[: len(excess)] < 0.20
        assert (calm * excess).mean() > excess.mean() + 0.02 / 252
        assert excess[calm].mean() > 0 > excess[~calm].mean()


@pytest.mark.parametrize("family", ["noise_v1", "planted_edge_v1", "regime_switching_v1"])
def test_every_market_has_enough_stressed_sessions_for_the_gates(family: str) -> None:
    found, _ = market(family, years=13)
    index = np.diff(np.log(found.index))
    volatility = np.sqrt(np.convolve(index**2, np.ones(21) / 21, "valid") * 252)
    high = volatility > 0.20
    assert high.sum() > 120
    assert (np.diff(high.astype(int)) == 1).sum() >= 3


@pytest.mark.parametrize(("family", "known"), [("kelly_v1", KELLY), ("regimes_v1", REGIMES), ("holding_v1", HOLDING)])
def test_a_known_answer_market_has_the_moments_that_its_optimum_is_computed_from(family: str, known: RegimeMarket) -> None:
    found, _ = market(family, years=40)
    returns = np.diff(np.log(found.close), axis=0)
    state = np.zeros(len(returns), dtype=int) if found.state is None else (found.state[:-1] > 0).astype(int)
    for number, (mean, deviation) in enumerate(zip(known.mean, known.deviation, strict=True)):
        after = returns[state == number]
        error = np.array(deviation) / np.sqrt(len(after))
        np.testing.assert_allclose(after.mean(axis=0), mean, atol=float(4 * error.max()))
        np.testing.assert_allclose(after.std(axis=0), deviation, rtol=0.05)


def test_the_volume_of_the_cross_section_tells_a_little_of_the_next_return() -> None:
    found, _ = market("cross_section_v1")
    signal = np.log(found.volume * found.close)[:-1]
    after = np.diff(np.log(found.close), axis=0)
    assert np.corrcoef(signal.ravel(), after.ravel())[0, 1] == pytest.approx(0.05, abs=0.01)
    leak, _ = market("foresight_v1")
    assert np.corrcoef(np.log(leak.volume * leak.close)[:-1].ravel(), np.diff(np.log(leak.close), axis=0).ravel())[0, 1] > 0.999


def test_cash_earns_nothing_where_the_answer_is_known(tmp_path: Path) -> None:
    bill = table(vendor("kelly_v1"), "index_level", ("TBILL_1M",), date(2001, 1, 2), date(2002, 1, 2), tmp_path)
    assert set(bill["value"].to_pylist()) == {0.0}


def test_the_state_of_the_market_is_shown_as_its_vix(tmp_path: Path) -> None:
    vix = table(vendor("regimes_v1"), "index_level", ("VIX",), date(2001, 1, 2), date(2002, 1, 2), tmp_path)
    assert {round(value, 9) for value in vix["value"].to_pylist()} == {0.1, 0.3}
