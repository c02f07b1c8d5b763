"""What was knowable when: late rows, halts, listings, endings, quarantined symbols, splits."""

from __future__ import annotations

import dataclasses
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.core.errors import ConfigError, MissingDataError
from quanto.market.point_in_time import MEMBERSHIP
from quanto.market.schema import CANONICAL
from quanto.stages.features.compute import compute, compute_columns
from quanto.stages.features.config import select_columns
from quanto.stages.features.load import CanonicalTables, build_view, wanted_series
from quanto.stages.features.registry import FEATURE_SETS
from quanto.stages.features.view import MarketView, mask_bars
from tests.stages.features.feature_markets import features_config, market

VIEW = market(sessions=280, names=4, seed=41)
CORE = {column.name: column for column in FEATURE_SETS["core_v1"].columns}
SELECTION = select_columns(features_config(VIEW))

NO_TABLES = (CANONICAL["index_level"].empty_table(), CANONICAL["equity_ohlcv"].empty_table(), MEMBERSHIP.empty_table())


def _without_bars(view: MarketView, rows: slice, column: int) -> MarketView:
    hidden = np.zeros(view.panel.close.shape, dtype=bool)
    hidden[rows, column] = True
    known = np.where(hidden, np.nan, view.bars_known)
    return dataclasses.replace(view, panel=mask_bars(view.panel, hidden), bars_known=known)


def _late(view: MarketView, row: int, column: int, sessions: int) -> MarketView:
    known = view.bars_known.copy()
    known[row, column] = view.days[row + sessions]
    return dataclasses.replace(view, bars_known=known)


def test_a_bar_known_late_is_unseen_until_then_and_seen_afterwards() -> None:
    late = _late(VIEW, 200, 1, 3)
    column = [CORE["volatility_21"], CORE["return_1"]]
    ours, without, complete = (compute_columns(view, column) for view in (late, _without_bars(VIEW, slice(200, 201), 1), VIEW))
    for name in ("volatility_21", "return_1"):
        np.testing.assert_array_equal(ours[name][200:203], without[name][200:203])
        np.testing.assert_array_equal(ours[name][203:], complete[name][203:])
    assert np.isnan(ours["return_1"][200, 1])


def test_a_name_whose_bar_is_late_is_not_eligible_that_evening() -> None:
    features = compute(_late(VIEW, 200, 1, 1), SELECTION)
    assert not features.eligible[200, 1]
    assert features.eligible[201, 1]
    assert features.eligible[200, [0, 2, 3]].all()


def test_a_halt_interrupts_eligibility_only_while_it_lasts() -> None:
    features = compute(_without_bars(VIEW, slice(150, 152), 2), SELECTION)
    assert features.eligible[149, 2]
    assert not features.eligible[150:152, 2].any()
    assert features.eligible[152:, 2].all()


def test_the_return_after_a_halt_spans_it_and_none_exists_within() -> None:
    halted = _without_bars(VIEW, slice(150, 152), 2)
    ours = compute_columns(halted, [CORE["return_1"]])["return_1"][:, 2]
    close, split = VIEW.panel.close[:, 2], VIEW.panel.split[:, 2]
    assert np.isnan(ours[150:152]).all()
    assert ours[152] == pytest.approx(np.log(close[152] * np.prod(split[150:153]) / close[149]))


def test_a_close_is_carried_over_a_trading_week_and_no_further() -> None:
    four, five = (compute_columns(_without_bars(VIEW, slice(150, 150 + n), 2), [CORE["return_1"]])["return_1"] for n in (4, 5))
    assert np.isfinite(four[154, 2])
    assert np.isnan(five[155, 2])
    assert np.isfinite(five[156, 2])


def test_a_new_listing_waits_for_its_columns_and_an_ended_name_is_never_eligible() -> None:
    features = compute(_without_bars(_without_bars(VIEW, slice(0, 100), 0), slice(250, None), 3), SELECTION)
    assert not features.eligible[:163, 0].any()
    assert features.eligible[163:, 0].all()
    assert not features.eligible[250:, 3].any()


def test_a_minimum_history_counts_bars() -> None:
    selection = select_columns(features_config(VIEW, minimum_history_sessions=120))
    features = compute(_without_bars(VIEW, slice(0, 50), 0), selection)
    assert not features.eligible[:169, 0].any()
    assert features.eligible[169:, 0].all()


def test_longer_columns_stay_missing_without_holding_a_name_back_unless_asked() -> None:
    short, every = (
        compute(VIEW, select_columns(features_config(VIEW, eligible_lookback_sessions=limit))).eligible.any(axis=1) for limit in (72, None)
    )
    assert int(np.argmax(short)) == 63
    assert int(np.argmax(every)) == 199


def test_a_split_changes_no_ratio() -> None:
    plain = market(sessions=280, names=4, seed=41)
    panel = plain.panel
    later = np.cumprod(panel.split[::-1], axis=0)[::-1] / panel.split
    prices = {name: getattr(panel, name) / later for name in ("open", "high", "low", "close")}
    unsplit = dataclasses.replace(panel, **prices, volume=panel.volume * later, split=np.ones_like(panel.split))
    adjusted = dataclasses.replace(plain, panel=unsplit, actions_known=np.full_like(plain.actions_known, np.nan))
    names = [column for name, column in CORE.items() if name != "log_dollar_volume"]
    ours, theirs = compute_columns(plain, names), compute_columns(adjusted, names)
    for name, values in ours.items():
        np.testing.assert_allclose(values, theirs[name], rtol=1e-9, atol=1e-10, err_msg=name)


def test_a_volume_that_never_changes_has_a_zscore_of_zero_and_no_volume_is_a_number() -> None:
    panel = dataclasses.replace(VIEW.panel, volume=np.where(np.arange(280)[:, None] > 200, 0.0, 1000.0) + np.zeros((280, 4)))
    panel = dataclasses.replace(panel, split=np.ones_like(panel.split))
    out = compute_columns(dataclasses.replace(VIEW, panel=panel), [CORE["volume_zscore_20"], CORE["log_dollar_volume"]])
    assert (out["volume_zscore_20"][30:200] == 0.0).all()
    assert np.isfinite(out["volume_zscore_20"][201:]).all()
    assert (out["log_dollar_volume"][201:] == 0.0).all()


@settings(deadline=None, max_examples=25)
@given(row=st.integers(80, 275), seed=st.integers(0, 10_000))
def test_changing_anything_after_a_session_changes_nothing_up_to_it(row: int, seed: int) -> None:
    from quanto.core.rng import generator
    from quanto.stages.features.stress import perturb_after

    base = compute(VIEW, SELECTION).outputs()
    other = compute(perturb_after(VIEW, row, generator(seed, "future")), SELECTION).outputs()
    for name, values in base.items():
        assert np.array_equal(values[: row + 1], other[name][: row + 1], equal_nan=True), name


def _bars(symbols: tuple[str, ...] = ("AAA", "BBB", "CCC")) -> pa.Table:
    days = VIEW.sessions[:40].astype(object)
    lineage = {"vendor": "v", "vendors_seen": "v", "method": "only", "flags": "", "payload": "0", "payload_row": 0}
    prices = {"open": 10.0, "high": 11.0, "low": 9.0, "close": 10.5, "volume": 100.0}
    rows = [{"session": day, "symbol": name, **prices, **lineage, "known_on": day} for day in days for name in symbols]
    return pa.Table.from_pylist(rows, schema=CANONICAL["equity_ohlcv"])


def _action(kind: str, ex_date: date, known_on: date, **fields: object) -> dict[str, object]:
    lineage = {"vendor": "v", "vendors_seen": "v", "method": "only", "flags": "", "payload": "0", "payload_row": 0}
    return {"symbol": "BBB", "kind": kind, "ex_date": ex_date, **fields, **lineage, "known_on": known_on}


def _loaded(*actions: dict[str, object]) -> MarketView:
    table = pa.Table.from_pylist(list(actions), schema=CANONICAL["corporate_actions"])
    tables = CanonicalTables(_bars(), table, *NO_TABLES)
    return build_view(tables, VIEW.sessions[:40], ("AAA", "BBB", "CCC"), {})


@pytest.mark.parametrize("kind", ["unknown", "stock_merger"])
def test_an_action_that_nothing_can_apply_quarantines_its_symbol_from_when_it_is_known(kind: str) -> None:
    days = VIEW.sessions[:40].astype(object)
    view = _loaded(_action(kind, days[10], days[12]))
    selection = select_columns(features_config(VIEW, feature_set="core_v1", columns=("intraday_return",), index_series=None))
    eligible = compute(view, selection).eligible
    assert eligible[:12, 1].all()
    assert not eligible[12:, 1].any()
    assert eligible[:, [0, 2]].all()


def test_splits_and_dividends_quarantine_nothing_and_carry_their_knowledge() -> None:
    days = VIEW.sessions[:40].astype(object)
    weekend = days[20] - timedelta(days=1)
    view = _loaded(
        _action("split", days[10], days[9], ratio=2.0),
        _action("cash_dividend", days[20], weekend, cash_usd=0.1),
        _action("split", days[30], days[33], ratio=3.0),
    )
    assert view.panel.split[10, 1] == 2.0
    assert view.known_by(9).panel.split[10, 1] == 2.0
    assert view.known_by(8).panel.split[10, 1] == 1.0
    assert view.known_by(32).panel.split[30, 1] == 1.0
    assert view.panel.dividend_usd[20, 1] == 0.1
    assert np.isnan(view.blocks_known).all()


def test_what_is_missing_is_named() -> None:
    tables = CanonicalTables(_bars(), CANONICAL["corporate_actions"].empty_table(), *NO_TABLES)
    with pytest.raises(MissingDataError, match="no bar of DDD, EEE and no value of series SPX"):
        build_view(tables, VIEW.sessions[:40], ("AAA", "DDD", "EEE"), {"index": "SPX"})
    with pytest.raises(ConfigError, match="vix_series"):
        wanted_series(features_config(VIEW, regime_feature_set="regime_vix_v1", vix_series=None))


def test_without_an_index_the_mean_return_of_the_names_stands_in() -> None:
    column = {column.name: column for column in FEATURE_SETS["regime_v1"].columns}["index_trend_20"]
    alone = dataclasses.replace(VIEW, series={})
    simple = VIEW.panel.close[1:] * VIEW.panel.split[1:] / VIEW.panel.close[:-1] - 1
    expected = np.log1p(simple.mean(axis=1))[-20:].sum()
    assert compute_columns(alone, [column])["index_trend_20"][-1] == pytest.approx(expected)


def test_a_restated_bar_counts_as_it_was_known_on_each_evening() -> None:
    days = VIEW.sessions[:40].astype(object)
    bars = _bars().to_pylist()
    current = next(row for row in bars if row["session"] == days[20] and row["symbol"] == "BBB")
    first = {**current, "close": 10.9, "flags": "restated"}
    current["known_on"] = days[22]
    tables = CanonicalTables(
        pa.Table.from_pylist(bars, schema=CANONICAL["equity_ohlcv"]),
        CANONICAL["corporate_actions"].empty_table(),
        CANONICAL["index_level"].empty_table(),
        pa.Table.from_pylist([first], schema=CANONICAL["equity_ohlcv"]),
        MEMBERSHIP.empty_table(),
    )
    view = build_view(tables, VIEW.sessions[:40], ("AAA", "BBB", "CCC"), {})
    values = compute_columns(view, [CORE["return_1"], CORE["intraday_return"], CORE["return_5"]])
    assert values["intraday_return"][20, 1] == pytest.approx(np.log(1.09))
    assert values["return_1"][20, 1] == pytest.approx(np.log(10.9 / 10.5))
    assert values["return_1"][21, 1] == pytest.approx(np.log(10.5 / 10.9))
    assert values["return_5"][25, 1] == 0.0
    selection = select_columns(features_config(VIEW, feature_set="core_v1", columns=("intraday_return",), index_series=None))
    assert compute(view, selection).eligible.all()


def test_a_name_outside_the_universe_is_not_eligible_and_enters_no_cross_section() -> None:
    columns = [column for part in ("xsec_v1", "regime_v1") for column in FEATURE_SETS[part].columns]
    outside = dataclasses.replace(VIEW, member=np.array([True, True, True, False]) & np.ones((280, 4), dtype=bool))
    three = _without_bars(VIEW, slice(None), 3)
    ours, theirs = compute_columns(outside, columns), compute_columns(three, columns)
    for name, values in ours.items():
        expected = theirs[name]
        if values.ndim == 2:
            values, expected = values[:, :3], expected[:, :3]
        np.testing.assert_array_equal(values, expected, err_msg=name)
    assert np.isnan(ours["xsec_return_5_rank"][:, 3]).all()
    assert not compute(outside, SELECTION).eligible[:, 3].any()


def test_a_universe_chosen_point_in_time_needs_its_membership_list() -> None:
    with pytest.raises(ValueError, match="membership is null"):
        features_config(VIEW, selection="point_in_time")
    row = {
        "universe": "mine",
        "symbol": "AAA",
        "start": VIEW.sessions[5].astype(object),
        "end": VIEW.sessions[9].astype(object),
        "source": "x",
    }
    table = pa.Table.from_pylist([row], schema=MEMBERSHIP)
    tables = CanonicalTables(_bars(), CANONICAL["corporate_actions"].empty_table(), *NO_TABLES[:2], table)
    view = build_view(tables, VIEW.sessions[:40], ("AAA", "BBB", "CCC"), {}, universe="mine")
    assert np.flatnonzero(view.member[:, 0]).tolist() == [5, 6, 7, 8, 9]
    assert not view.member[:, 1:].any()
    with pytest.raises(MissingDataError, match="yours"):
        build_view(tables, VIEW.sessions[:40], ("AAA", "BBB", "CCC"), {}, universe="yours")
