"""What every registered feature set and column must keep; a new one is tested by being registered."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest

from quanto.policy.observation import INDICATOR_SUFFIX
from quanto.stages.features.column import FeatureColumn
from quanto.stages.features.compute import compute_columns
from quanto.stages.features.proof import Claim, prove
from quanto.stages.features.registry import FEATURE_SETS
from quanto.stages.features.view import DOMAINS, MarketView
from tests.stages.features.feature_markets import market

EVERY: dict[str, FeatureColumn] = {column.name: column for part in FEATURE_SETS.values() for column in part.columns}
VIEW = market(sessions=300, names=4, seed=21)
VALUES = compute_columns(VIEW, list(EVERY.values()))

SEED_SETS = (
    "core_v1",
    "core_v1_regime",
    "core_v1_xsec_regime",
    "core_v1_xsec_regime_opts_v1",
    "core_v1_xsec_regime_opts_v1_lag1",
    "options_surface_v1",
    "options_surface_v1_lag1",
    "regime_v1",
    "regime_vix_v1",
    "xsec_v1",
)


def _build(view: MarketView, names: frozenset[str] | None = None) -> Mapping[str, np.ndarray]:
    return compute_columns(view, [column for column in EVERY.values() if names is None or column.name in names])


@pytest.fixture(scope="module")
def proof() -> Mapping[str, Mapping[str, object]]:
    claims = {}
    for column in EVERY.values():
        needs_bar = column.axis == "asset" and column.required
        claims[column.name] = Claim(column.lookback, np.nan if needs_bar else None)
    cuts = np.arange(len(VIEW.sessions))
    return prove(_build, claims, VIEW, cuts, seed=3)["columns"]  # type: ignore[return-value]


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_a_column_is_free_of_look_ahead_at_every_session(name: str, proof: Mapping[str, Mapping[str, object]]) -> None:
    report = proof[name]
    assert report["mismatches"] == 0, report["first_mismatch"]
    assert report["passed"] is True, report
    assert int(report["sessions"]) >= (20 if EVERY[name].lookback is None else 64)  # type: ignore[call-overload]


def test_all_sets_of_the_seed_are_registered() -> None:
    assert set(SEED_SETS) <= set(FEATURE_SETS)


def test_a_name_means_the_same_column_in_every_set() -> None:
    for part in FEATURE_SETS.values():
        assert all(EVERY[column.name] is column or EVERY[column.name] == column for column in part.columns)
        assert len({column.name for column in part.columns}) == len(part.columns)


@pytest.mark.parametrize("name", EVERY)
def test_a_column_says_what_it_is(name: str) -> None:
    column = EVERY[name]
    for field in ("formula", "unit", "nan_rule", "source", "known"):
        assert getattr(column, field).strip(), field
    assert column.lag >= 0
    assert column.lookback is None or column.lookback >= column.lag
    assert column.reads
    assert column.reads <= set(DOMAINS)
    with pytest.raises(dataclasses.FrozenInstanceError):
        column.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("name", EVERY)
def test_a_column_has_the_shape_of_its_axis_and_real_values(name: str) -> None:
    column, values = EVERY[name], VALUES[name]
    assert values.dtype == np.float64
    assert values.shape == (VIEW.panel.close.shape if column.axis == "asset" else (len(VIEW.sessions),))
    finite = values[np.isfinite(values)]
    assert len(finite) > 20
    assert not np.isinf(values).any()
    if name.endswith(INDICATOR_SUFFIX):
        assert set(np.unique(values)) == {0.0, 1.0}
    else:
        assert np.std(finite) > 0


@pytest.mark.parametrize("name", EVERY)
def test_a_column_reads_no_domain_that_it_does_not_declare(name: str) -> None:
    column = EVERY[name]
    blind = VIEW.without(frozenset(DOMAINS) - column.reads)
    np.testing.assert_array_equal(compute_columns(blind, [column])[name], VALUES[name])


@pytest.mark.parametrize("name", EVERY)
def test_a_column_needs_every_domain_that_it_declares(name: str) -> None:
    column = EVERY[name]
    for domain in sorted(column.reads):
        blind = VIEW.without(frozenset({domain}))
        # Bars and actions stand in only where no index is configured.
        if column.axis == "market" and "index" in column.reads and domain != "index":
            blind = dataclasses.replace(blind, series={name: values for name, values in blind.series.items() if name != "index"})
        assert not np.array_equal(compute_columns(blind, [column])[name], VALUES[name], equal_nan=True), domain


@pytest.mark.parametrize("name", [name for name, column in EVERY.items() if column.axis == "asset"])
def test_the_order_of_the_symbols_does_not_matter(name: str) -> None:
    order = np.array([2, 0, 3, 1])
    shuffled = compute_columns(_reordered(VIEW, order), [EVERY[name]])[name]
    np.testing.assert_allclose(shuffled, VALUES[name][:, order], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [name for name, column in EVERY.items() if column.lag])
def test_a_lagged_column_is_the_same_column_one_session_later(name: str) -> None:
    original = VALUES[name.replace("_lag1", "")]
    np.testing.assert_array_equal(VALUES[name][1:], original[:-1])


def _reordered(view: MarketView, order: np.ndarray) -> MarketView:
    panel = view.panel
    fields = {name: getattr(panel, name)[:, order] for name in ("open", "high", "low", "close", "volume", "split", "dividend_usd")}
    return dataclasses.replace(
        view,
        panel=dataclasses.replace(panel, symbols=tuple(panel.symbols[place] for place in order), **fields),
        bars_known=view.bars_known[:, order],
        actions_known=view.actions_known[:, order],
        blocks_known=view.blocks_known[:, order],
        surface={name: values[:, order] for name, values in view.surface.items()},
        surface_known=view.surface_known[:, order],
        member=view.member[:, order],
    )
