from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from quanto.core.config import load_section
from quanto.core.errors import ConfigError, DataError, MissingDataError
from quanto.core.store import read_json
from quanto.stages.features.config import FeaturesConfig
from quanto.stages.features.stage import audit_leakage, run
from tests.stages.features.feature_markets import features_config, market, write_canonical, write_surfaces


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    view = market(sessions=420, names=4)
    write_canonical(folder, view)
    with ThreadPoolExecutor(1) as executor:
        run(_config(), folder, executor)
    return folder


def _config(**changes: object) -> FeaturesConfig:
    view = market(sessions=420, names=4)
    return features_config(view, start_date=view.sessions[60].astype(object), **changes)


def test_the_table_has_one_row_for_every_session_and_symbol_in_key_order(workspace: Path) -> None:
    table = pq.read_table(workspace / "data/features/features.parquet")
    view = market(sessions=420, names=4)
    expected = [(day, symbol) for day in view.sessions[60:].astype(object) for symbol in view.symbols]
    assert list(zip(table["session"].to_pylist(), table["symbol"].to_pylist(), strict=True)) == expected
    assert table.column_names[2:] == [
        "return_1", "return_5", "return_21", "overnight_return", "intraday_return", "volatility_21", "volatility_63", "true_range_14",
        "distance_high_20", "distance_low_20", "distance_mean_200", "log_dollar_volume", "volume_zscore_20", "eligible",
    ]  # fmt: skip


def test_history_before_the_start_warms_the_windows_up(workspace: Path) -> None:
    table = pq.read_table(workspace / "data/features/features.parquet").to_pandas()
    first = table[table["session"] == table["session"].min()]
    assert first["volatility_21"].notna().all()
    assert first["distance_mean_200"].isna().all()


def test_the_regime_table_has_the_market_columns_and_the_label(workspace: Path) -> None:
    table = pq.read_table(workspace / "data/features/regime.parquet")
    assert table.column_names == [
        "session", "index_volatility_21", "index_volatility_percentile", "index_trend_20", "dispersion_20", "mean_correlation_20",
        "correlation_spike_60", "breadth", "high_volatility",
    ]  # fmt: skip
    labels = pq.read_table(workspace / "data/features/labels.parquet").to_pandas()
    known = labels["high_volatility"].notna().to_numpy()
    assert known.any()
    assert not known.all()
    entered = known & (labels["volatility"] > labels["enter_threshold"]).to_numpy()
    assert labels["high_volatility"][entered].all()


def test_the_proof_passes_at_64_sessions_or_more(workspace: Path) -> None:
    proof = read_json(workspace / "reports/features/leak_proof.json")
    assert isinstance(proof, dict)
    assert proof["passed"] is True
    assert proof["sessions"] >= 64
    assert {item["passed"] for item in proof["columns"].values()} == {True}
    assert min(item["comparisons"] for item in proof["columns"].values()) > 0


def test_the_report_describes_every_column(workspace: Path) -> None:
    report = read_json(workspace / "reports/features/features.json")
    assert isinstance(report, dict)
    column = report["columns"]["volatility_63"]
    assert column["lookback_sessions"] == 71
    assert column["coverage"] == pytest.approx(357 / 360)  # 63 returns need 64 sessions, 60 of them before the start
    assert {"formula", "unit", "nan_rule", "source", "quantiles", "drift", "first_finite_session"} <= set(column)
    assert report["columns"]["index_volatility_percentile"]["lookback_sessions"] == "expanding"
    size = len(report["correlation"]["names"])
    assert [len(line) for line in report["correlation"]["matrix"]] == [size] * size


def test_two_runs_and_another_executor_give_the_same_bytes(workspace: Path, tmp_path: Path) -> None:
    write_canonical(tmp_path, market(sessions=420, names=4))
    with ProcessPoolExecutor(2) as executor:
        run(_config(symbols=tuple(reversed(market(sessions=420, names=4).symbols))), tmp_path, executor)
    outputs = ("data/features", "reports")
    names = sorted(path.relative_to(workspace).as_posix() for part in outputs for path in (workspace / part).rglob("*.*"))
    assert [name.rpartition("/")[2] for name in names] == [
        "features.parquet",
        "labels.parquet",
        "regime.parquet",
        "features.json",
        "leak_proof.json",
    ]
    for name in names:
        assert (tmp_path / name).read_bytes() == (workspace / name).read_bytes(), name


def test_a_subset_of_columns_keeps_the_asked_order_and_the_same_values(workspace: Path, tmp_path: Path) -> None:
    write_canonical(tmp_path, market(sessions=420, names=4))
    config = _config(columns=("volatility_21", "return_1"), market_columns=("breadth",), eligible_lookback_sessions=None)
    with ThreadPoolExecutor(1) as executor:
        run(config, tmp_path, executor)
    few, all_ = (pq.read_table(folder / "data/features/features.parquet") for folder in (tmp_path, workspace))
    assert few.column_names == ["session", "symbol", "volatility_21", "return_1", "eligible"]
    assert few["volatility_21"].equals(all_["volatility_21"])
    assert pq.read_table(tmp_path / "data/features/regime.parquet").column_names == ["session", "breadth", "high_volatility"]


def test_an_audit_writes_nothing_and_agrees_with_the_stage(workspace: Path) -> None:
    before = sorted(workspace.rglob("*"))
    report = audit_leakage(_config(), workspace)
    assert report["passed"] is True
    assert sorted(workspace.rglob("*")) == before
    assert report == read_json(workspace / "reports/features/leak_proof.json")


def test_a_symbol_and_a_series_without_data_are_named_together(workspace: Path) -> None:
    config = _config(symbols=("AAA", "BBB", "NONE1"), index_series="NDX")
    with pytest.raises(MissingDataError, match=r"no bar of NONE1 and no value of series NDX"), ThreadPoolExecutor(1) as executor:
        run(config, workspace, executor)


def test_an_empty_workspace_says_which_stage_to_run(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="dvc repro"), ThreadPoolExecutor(1) as executor:
        run(_config(), tmp_path, executor)


def test_columns_that_this_universe_cannot_have_are_named(tmp_path: Path) -> None:
    view = market(sessions=420, names=1)
    write_canonical(tmp_path, view)
    with pytest.raises(DataError, match=r"dispersion_20, mean_correlation_20, correlation_spike_60, breadth have no value"):
        run(features_config(view), tmp_path, ThreadPoolExecutor(1))
    config = features_config(view, market_columns=("index_volatility_21", "index_volatility_percentile", "index_trend_20"))
    run(config, tmp_path, ThreadPoolExecutor(1))
    proof = read_json(tmp_path / "reports/features/leak_proof.json")
    assert isinstance(proof, dict)
    assert proof["passed"] is True


def test_all_faults_of_the_section_come_at_once() -> None:
    raw = _config().model_dump(mode="json")
    raw |= {"symbols": ["A", "A"], "end_date": raw["start_date"], "feature_set": "core_v2"}
    with pytest.raises(ConfigError) as caught:
        load_section("features", raw, FeaturesConfig)
    for part in ("symbols repeat A", "end_date must lie after start_date", "no feature set is called 'core_v2'", "core_v1_regime"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regime_feature_set": "core_v1"}, "may have market columns only"),
        ({"feature_set": "regime_v1"}, "has market columns only"),
        ({"columns": ("return_2",)}, "Did you mean 'return_2?1'"),
        ({"market_columns": ("breadth", "breadth")}, "once"),
        ({"regime_labeller": "hmm"}, "no regime labeller"),
        ({"proof_sessions": 63}, "greater than or equal to 64"),
    ],
)
def test_a_selection_that_makes_no_sense_is_refused(changes: dict[str, object], message: str) -> None:
    raw = _config().model_dump(mode="json") | changes
    with pytest.raises(ConfigError, match=message):
        load_section("features", raw, FeaturesConfig)


def test_eligible_names_have_a_bar_and_every_column_that_holds_them_back(workspace: Path) -> None:
    table = pq.read_table(workspace / "data/features/features.parquet").to_pandas()
    held = table[table["eligible"]]
    assert held.drop(columns=["session", "symbol", "eligible", "distance_mean_200"]).notna().all().all()
    assert np.isfinite(held["volatility_63"]).all()
    assert len(held) > 0


def test_a_configured_surface_is_read_and_a_name_without_one_may_be_held(tmp_path: Path) -> None:
    view = market(sessions=200, names=3)
    write_canonical(tmp_path, view)
    write_surfaces(tmp_path, view, ("AAA", "BBB"))
    columns = ("return_1", "atm_iv_30", "skew_25_30", "put_call_volume", "atm_iv_available")
    settings = {"feature_set": "core_v1_xsec_regime_opts_v1", "columns": columns, "market_columns": ("index_trend_20",)}
    with ThreadPoolExecutor(1) as executor:
        run(features_config(view, **settings), tmp_path, executor)
    table = pq.read_table(tmp_path / "data/features/features.parquet").to_pandas()
    assert table.groupby("symbol")["atm_iv_available"].mean().to_dict() == {"AAA": 1.0, "BBB": 1.0, "CCC": 0.0}
    assert table.loc[table["symbol"] == "CCC", "eligible"].mean() > 0.9
    seen = table[table["symbol"] == "AAA"]
    number = np.arange(len(seen))
    np.testing.assert_allclose(seen["skew_25_30"], -0.04 * (1 + 0.2 * np.sin(number / 7)), atol=1e-9)
    np.testing.assert_allclose(seen["put_call_volume"], np.log((31 + 2 * (number % 5)) / (21 + 2 * (number % 5))), atol=1e-12)
    proof = read_json(tmp_path / "reports/features/leak_proof.json")
    assert isinstance(proof, dict)
    assert proof["passed"] is True
    with pytest.raises(MissingDataError, match="no usable options surface"), ThreadPoolExecutor(1) as executor:
        run(features_config(view, **settings, symbols=("CCC",)), tmp_path, executor)
