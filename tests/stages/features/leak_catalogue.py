"""Seeded leaks that the proof must find, and honest columns on which it must stay silent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from quanto.market.windows import lag, window_mean, window_price_mean, window_share_at_most
from quanto.stages.features.audit import OBSERVED, OutputBuilder, claims, output_builder
from quanto.stages.features.column import FeatureColumn
from quanto.stages.features.compute import compute_columns
from quanto.stages.features.config import select_columns
from quanto.stages.features.derived import Derived, row_rank
from quanto.stages.features.proof import Builder, Claim
from quanto.stages.features.view import DOMAINS, MarketView
from tests.stages.features.feature_markets import features_config, market

VIEW = market(sessions=330, names=4, seed=31)
Column = Callable[[Derived], np.ndarray]


@dataclass(frozen=True)
class Mutant:
    """One output, leaking or honest, and what it claims."""

    name: str
    sentence: str
    leak: bool
    build: Builder
    claims: Mapping[str, Claim]


def _column(name: str, sentence: str, compute: Column, *, leak: bool = True, lookback: int | None = None, bar: bool = True) -> Mutant:
    """Return a mutant whose column runs in the platform's own frame, as a registered column would."""
    axis = "asset" if compute(Derived(VIEW)).ndim == 2 else "market"
    column = FeatureColumn(
        name=name, axis=axis, formula=sentence, unit="1", lookback=lookback, nan_rule="as it comes", source="a test",
        reads=frozenset(DOMAINS), compute=compute,
    )  # fmt: skip

    def build(view: MarketView, names: frozenset[str] | None = None) -> Mapping[str, np.ndarray]:
        return compute_columns(view, [column])

    return Mutant(name, sentence, leak, build, {name: Claim(lookback, np.nan if bar and axis == "asset" else None)})


def _bypass(name: str, sentence: str, compute: Column) -> Mutant:
    """Return a mutant that reads the whole table and does not ask when a row was known."""

    def build(view: MarketView, names: frozenset[str] | None = None) -> Mapping[str, np.ndarray]:
        return {name: compute(Derived(view))}

    return Mutant(name, sentence, True, build, {name: Claim(None, None)})


def _frame(values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values)


def _where_bar(market: Derived, values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(market.panel.close), values, np.nan)


def _returns(market: Derived) -> np.ndarray:
    return market.log_return(1)


def _lead(values: np.ndarray, count: int = 1) -> np.ndarray:
    return lag(values[::-1], count)[::-1]


def _back_filled(market: Derived) -> np.ndarray:
    close = _frame(market.panel.close).bfill().to_numpy()
    return close / lag(close, 1)


def _back_filled_surface(market: Derived) -> np.ndarray:
    return _where_bar(market, _frame(market.view.surface["atm_30"]).bfill().to_numpy())


def _interpolated(market: Derived) -> np.ndarray:
    return pd.Series(market.vix).interpolate().to_numpy()


def _interpolated_surface(market: Derived) -> np.ndarray:
    return _where_bar(market, _frame(market.view.surface["put_25_30"]).interpolate().to_numpy())


def _detrended(market: Derived) -> np.ndarray:
    level = np.nan_to_num(np.cumsum(np.nan_to_num(_returns(market)), axis=0))
    time = np.arange(len(level), dtype=np.float64)
    slope, intercept = np.polyfit(time, level, 1) if len(level) > 2 else (np.zeros(level.shape[1]), np.zeros(level.shape[1]))
    return _where_bar(market, level - time[:, None] * slope - intercept)


def _low_pass(market: Derived) -> np.ndarray:
    spectrum = np.fft.rfft(np.nan_to_num(_returns(market)), axis=0)
    spectrum[max(1, len(spectrum) // 10) :] = 0.0
    return _where_bar(market, np.fft.irfft(spectrum, n=len(market.panel.close), axis=0))


def _first_component(market: Derived) -> np.ndarray:
    returns = np.nan_to_num(_returns(market))
    _, _, components = np.linalg.svd(returns, full_matrices=False)
    return returns @ (components[0] * np.sign(components[0, 0] or 1.0))


def _smoothed_volatility(market: Derived) -> np.ndarray:
    squared = pd.Series(np.nan_to_num(market.index_return) ** 2)
    forward, backward = squared.ewm(alpha=0.06).mean(), squared[::-1].ewm(alpha=0.06).mean()[::-1]
    return np.sqrt(0.5 * (forward + backward)).to_numpy()


def _whole_sample_label(market: Derived) -> np.ndarray:
    volatility = pd.Series(market.index_return).rolling(21).std()
    return (volatility > volatility.quantile(0.8)).astype(float).to_numpy()


def _members_of_today(market: Derived) -> np.ndarray:
    alive = np.isfinite(market.panel.close[-1])
    return np.nanmean(np.where(alive, np.nan_to_num(_returns(market)), 0.0), axis=1)


def _back_adjusted(market: Derived) -> np.ndarray:
    later = np.cumprod(market.panel.split[::-1], axis=0)[::-1] / market.panel.split
    return np.log(market.panel.close / later)


def _month_end(market: Derived) -> np.ndarray:
    months = pd.Series(market.view.sessions.astype("datetime64[M]").astype(str))
    last = _frame(market.panel.close).groupby(months.to_numpy()).transform("last").to_numpy()
    return _where_bar(market, last / market.panel.close)


def _week_start(market: Derived) -> np.ndarray:
    index = pd.DatetimeIndex(market.view.sessions)
    weekly = _frame(market.panel.close).set_index(index).resample("W-SUN", label="left", closed="right").last()
    return _where_bar(market, market.panel.close / weekly.reindex(index, method="ffill").to_numpy())


def _listed_early(market: Derived) -> np.ndarray:
    close = _frame(market.panel.close)
    filled = close.ffill().bfill()
    return (filled / filled.shift(20)).to_numpy()


def _carried_for_ever(market: Derived) -> np.ndarray:
    return _frame(_returns(market)).ffill().to_numpy()


def _survivors(market: Derived) -> np.ndarray:
    rank = row_rank(market.log_return(5))
    return np.where(np.isfinite(market.panel.close[-1]), rank, np.nan)


def _eligible_by_length(market: Derived) -> np.ndarray:
    bars = np.isfinite(market.panel.close)
    return _where_bar(market, (bars.sum(axis=0) >= 200) * market.log_return(5))


def _countdown(market: Derived) -> np.ndarray:
    rows = np.arange(len(market.panel.close), dtype=np.float64)
    happens = market.panel.split != 1.0
    upcoming = np.where(happens, rows[:, None], np.inf)
    upcoming = np.minimum.accumulate(upcoming[::-1], axis=0)[::-1]
    return _where_bar(market, np.minimum(upcoming - rows[:, None], 30.0) * np.sign(market.panel.close))


def _noise_of_length(market: Derived) -> np.ndarray:
    noise = np.random.default_rng(len(market.panel.close)).standard_normal(market.panel.close.shape)
    return _where_bar(market, _returns(market) + 1e-6 * noise)


def _filled_with_mean(market: Derived) -> np.ndarray:
    returns = _frame(_returns(market))
    return returns.fillna(returns.mean()).to_numpy()


def _sum_to_come(market: Derived) -> np.ndarray:
    return np.cumsum(np.nan_to_num(_returns(market))[::-1], axis=0)[::-1]


def _split_ahead(market: Derived) -> np.ndarray:
    return market.panel.close / np.nan_to_num(_lead(market.panel.split), nan=1.0)


def _sixty_sessions(market: Derived) -> np.ndarray:
    return window_price_mean(market.panel.close, market.panel.split, 60) / market.panel.close


def _running_sum(market: Derived) -> np.ndarray:
    return _where_bar(market, _frame(_returns(market)).fillna(0).cumsum().diff(20).to_numpy())


def _memory() -> Builder:
    remembered: dict[tuple[object, str], float] = {}

    def build(view: MarketView, names: frozenset[str] | None = None) -> Mapping[str, np.ndarray]:
        values = Derived(view).log_return(5)
        future = _lead(values)
        for row, session in enumerate(view.sessions.tolist()):
            for column, symbol in enumerate(view.symbols):
                values[row, column] = remembered.setdefault((session, symbol), future[row, column])
        return {"remembers": values}

    return build


def _constant(view: MarketView, names: frozenset[str] | None = None) -> Mapping[str, np.ndarray]:
    """Reads nothing of the market: as a file with the answers would."""
    rows = view.sessions.astype(np.int64)
    return {"reads_a_file": np.sin(rows[:, None] * (1.0 + np.arange(len(view.symbols))))}


def _scaled_on_everything() -> Mutant:
    config = features_config(VIEW, columns=("return_1", "volatility_21"), market_columns=("index_trend_20",))
    honest = output_builder(config, VIEW)
    leaking = OutputBuilder(config, VIEW.sessions[0], VIEW.sessions[-1])
    wanted = {name: claim for name, claim in claims(select_columns(config), honest.train_end).items() if name.startswith(OBSERVED)}
    return Mutant("scaler_on_all_data", "mean and deviation of the observation from all sessions", True, leaking, wanted)


def _scaled_on_training() -> Mutant:
    config = features_config(VIEW, columns=("return_1", "volatility_21"), market_columns=("index_trend_20",))
    honest = output_builder(config, VIEW)
    wanted = {name: claim for name, claim in claims(select_columns(config), honest.train_end).items() if name.startswith(OBSERVED)}
    return Mutant("scaler_on_training", "mean and deviation of the observation from the train window", False, honest, wanted)


def leaks() -> tuple[Mutant, ...]:
    """Return the seeded leaks."""

    def masked(function: Column) -> Column:
        return lambda market: _where_bar(market, function(market))

    def frame(function: Callable[[pd.DataFrame], pd.DataFrame]) -> Column:
        return masked(lambda market: function(_frame(market.log_return(1))).to_numpy())

    return (
        _column("back_fill", "gaps filled from the next bar", _back_filled),
        _column("back_filled_surface", "a missing surface filled from the next one", _back_filled_surface),
        _column("interpolation", "a missing VIX interpolated between its neighbours", _interpolated),
        _column("interpolated_surface", "a missing surface interpolated between its neighbours", _interpolated_surface),
        _column("fill_with_mean", "gaps filled with the mean of all sessions", _filled_with_mean),
        _column("centred_mean", "mean of t-2..t+2", frame(lambda x: x.rolling(5, center=True).mean())),
        _column("shift_minus_one", "tomorrow's return", masked(lambda m: _lead(_returns(m))), lookback=5),
        _column("shift_minus_five", "the return of the next five sessions", masked(lambda m: _lead(m.log_return(5), 5)), lookback=9),
        _column("window_off_by_one", "a 20-session mean that ends tomorrow", masked(lambda m: _lead(window_mean(_returns(m), 20)))),
        _column("tomorrow_open", "the gap that is still to come", lambda m: _lead(m.panel.open) / m.panel.close),
        _column("tomorrow_high", "today's close against tomorrow's high", lambda m: _lead(m.panel.high) / m.panel.close),
        _column("tomorrow_dividend", "the dividend of the next session", masked(lambda m: _lead(m.panel.dividend_usd))),
        _column("whole_sample_quantile", "above the 80 % quantile of all sessions", frame(lambda x: (x > x.quantile(0.8)) * 1.0)),
        _column("whole_sample_zscore", "mean and deviation of all sessions", frame(lambda x: (x - x.mean()) / x.std())),
        _column("whole_sample_rank", "rank among all sessions", frame(lambda x: x.rank(pct=True))),
        _column("whole_sample_min_max", "scaled to 0..1 over all sessions", frame(lambda x: (x - x.min()) / (x.max() - x.min()))),
        _column("whole_sample_winsor", "cut at the 5 % quantile of all sessions", frame(lambda x: x.clip(lower=x.quantile(0.05), axis=1))),
        _column("relative_volume", "volume over the mean of all sessions", lambda m: m.panel.volume / np.nanmean(m.panel.volume, axis=0)),
        _column("final_peak", "close over the highest close of all sessions", lambda m: m.panel.close / np.nanmax(m.panel.close, axis=0)),
        _column("reverse_cumsum", "sum of all returns still to come", masked(_sum_to_come)),
        _column("wrap_around", "np.roll brings the last session to the first", masked(lambda m: np.roll(m.panel.close, 1, axis=0))),
        _column("detrended", "residual of a line through all sessions", _detrended),
        _column("low_pass", "Fourier filter over all sessions", _low_pass),
        _column("first_component", "principal component of all sessions", _first_component),
        _column("smoothed_volatility", "volatility filtered forwards and backwards", _smoothed_volatility),
        _column("whole_sample_regime", "label against the 80 % quantile of all sessions", _whole_sample_label),
        _column("index_of_tomorrow", "the index a session early", lambda m: _lead(m.index_return)),
        _column("back_adjusted_level", "log of the price adjusted by later splits", _back_adjusted),
        _column("split_ahead", "today's close already divided by tomorrow's split", _split_ahead),
        _column("split_countdown", "sessions until the next split", _countdown),
        _column("members_of_today", "mean over the names that have a bar on the last session", _members_of_today),
        _column("survivors", "rank of the names that survive", _survivors),
        _column("eligible_by_length", "only names with 200 bars in all", _eligible_by_length),
        _column("month_end", "the last close of the running month", _month_end),
        _column("left_labelled_week", "the week's last close under its first day", _week_start),
        _column("listed_early", "a new listing filled backwards", _listed_early),
        _column("carried_for_ever", "values where the name has no bar", _carried_for_ever),
        _column("noise_of_length", "noise seeded by the number of sessions", _noise_of_length),
        _column("understated_lookback", "60 sessions read, 20 declared", _sixty_sessions, lookback=20),
        _column("running_sum", "an online rolling sum: its bits depend on the first session", _running_sum, lookback=24),
        _bypass("restated_values", "bars used before they were known", lambda m: m.log_return(5)),
        _bypass("surface_of_the_same_close", "a surface used before it was known", lambda m: m.view.surface["atm_30"] * 1.0),
        _bypass("index_before_release", "an index level used before it was known", lambda m: m.index_return),
        _bypass("split_before_known", "a split applied before it was known", lambda m: np.log(m.panel.split) + 0.0 * m.panel.close),
        _scaled_on_everything(),
        Mutant("remembers", "values kept from an earlier call", True, _memory(), {"remembers": Claim(None, None)}),
        Mutant("reads_a_file", "answers that do not come from the market", True, _constant, {"reads_a_file": Claim(0, None)}),
    )


def controls() -> tuple[Mutant, ...]:
    """Return honest columns of many kinds."""

    def expanding(market: Derived) -> np.ndarray:
        returns = _frame(_returns(market))
        return _where_bar(market, ((returns - returns.expanding(20).mean()) / returns.expanding(20).std()).to_numpy())

    def recursive(market: Derived) -> np.ndarray:
        return _where_bar(market, _frame(_returns(market)).ewm(alpha=0.06).mean().to_numpy())

    def carried(market: Derived) -> np.ndarray:
        return _where_bar(market, market.panel.close / _frame(market.panel.close).ffill(limit=4).shift(5).to_numpy())

    def previous_month(market: Derived) -> np.ndarray:
        months = market.view.sessions.astype("datetime64[M]")
        last = _frame(market.panel.close).ffill().groupby(months.astype(str)).last()
        earlier = last.shift(1).reindex(months.astype(str)).to_numpy()
        return _where_bar(market, market.panel.close / earlier)

    def right_labelled_week(market: Derived) -> np.ndarray:
        index = pd.DatetimeIndex(market.view.sessions)
        weekly = _frame(market.panel.close).set_index(index).resample("W-FRI", label="right", closed="right").last().shift(1)
        return _where_bar(market, market.panel.close / weekly.reindex(index, method="bfill").to_numpy())

    def label(market: Derived) -> np.ndarray:
        volatility = pd.Series(market.index_return).rolling(21).std()
        return (volatility > volatility.expanding(60).quantile(0.8)).astype(float).to_numpy() + 0.0 * volatility.to_numpy()

    def share(market: Derived) -> np.ndarray:
        return window_share_at_most(_returns(market), 60, 40)

    def dividend(market: Derived) -> np.ndarray:
        return market.panel.dividend_usd / market.panel.close

    def surface(market: Derived) -> np.ndarray:
        return market.view.surface["atm_30"] * 1.0

    def cumulative(market: Derived) -> np.ndarray:
        return _where_bar(market, np.cumsum(np.nan_to_num(_returns(market)), axis=0))

    return (
        _column("plain_return", "log return over 5 sessions", lambda m: m.log_return(5), leak=False, lookback=9),
        _column("rank_of_the_session", "rank among the session's names", lambda m: row_rank(m.log_return(5)), leak=False, lookback=9),
        _column("share_of_sixty", "share of the last 60 returns that are not above", share, leak=False, lookback=64),
        _column("expanding_zscore", "mean and deviation of the sessions so far", expanding, leak=False),
        _column("recursive_mean", "exponentially weighted mean of the past", recursive, leak=False),
        _column("carried_reference", "close over a close carried for at most 4 sessions", carried, leak=False, lookback=9),
        _column("previous_month_end", "close over the last close of the month before", previous_month, leak=False),
        _column("right_labelled_week", "close over the last close of the week before", right_labelled_week, leak=False),
        _column("expanding_regime", "label against the quantile of the sessions so far", label, leak=False),
        _column("cumulative_return", "sum of all returns so far", cumulative, leak=False),
        _column("dividend_yield", "dividend of the session over its close", dividend, leak=False, lookback=0),
        _column("surface_level", "the session's surface, once it is known", surface, leak=False, lookback=0, bar=False),
        _scaled_on_training(),
    )
