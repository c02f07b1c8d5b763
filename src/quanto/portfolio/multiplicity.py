"""What the best of many trials proves: superior predictive ability, overfitting by cross-validation, seeds together."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy import stats

from quanto.core.errors import DataError
from quanto.portfolio.series import FloatArray, finite

IntArray = npt.NDArray[np.int64]

SPA_BLOCK = 5
PBO_BLOCKS = 16
MARKETS_AT_ONCE = 16


def superior_ability(pseudo_alphas: npt.ArrayLike, indices: IntArray, block: float = SPA_BLOCK) -> FloatArray:
    """Return for every trial the SPA p-value (consistent): how often the best of all, without skill, reaches its mean.

    The smallest is the p-value of `arch.bootstrap.SPA(zeros, -X, block_size=block)` from the same draws (test B of
    the gates). Hansen (2005), "A Test for Superior Predictive Ability"; the statistic is not studentised, as arch's.

    Parameters
    ----------
    pseudo_alphas
        Shape (K, T) of one market or (n, K, T) of n: see `significance.pseudo_alphas`. NaN is refused.
    indices
        Shape (draws, T): `bootstrap.stationary_indices(T, block, draws, rng)`; all markets use the same.

    Returns
    -------
    Shape (K,) or (n, K).

    Raises
    ------
    DataError
        If a value is not finite or shapes do not fit.
    """
    x = finite("pseudo_alphas", pseudo_alphas, 3 if np.ndim(pseudo_alphas) == 3 else 2)
    single = x.ndim == 2
    markets = x[None] if single else x
    n, trials, sessions = markets.shape
    if indices.ndim != 2 or indices.shape[1] != sessions or trials < 1 or sessions < 3:
        raise DataError(
            f"indices must have shape (draws, T) for at least one trial of T >= 3 sessions; found {indices.shape} for {x.shape}"
        )
    counts = _draw_counts(indices)
    found = np.empty((n, trials))
    for start in range(0, n, MARKETS_AT_ONCE):
        rows = markets[start : start + MARKETS_AT_ONCE]
        means = rows.mean(axis=2)
        variance = _stationary_variance(rows.reshape(-1, sessions), block).reshape(means.shape)
        # A trial far below zero could not win and so is centred at zero instead of its own mean.
        centre = np.where(means >= -np.sqrt(variance / sessions * 2 * np.log(np.log(sessions))), means, 0.0)
        drawn = (rows.reshape(-1, sessions) @ counts / sessions).reshape(*means.shape, -1)
        best = (drawn - centre[:, :, None]).max(axis=1)
        found[start : start + MARKETS_AT_ONCE] = (best[:, None, :] > means[:, :, None]).mean(axis=2)
    return found[0] if single else found


@dataclass(frozen=True)
class Overfitting:
    """Combinatorially symmetric cross-validation over trials.

    Attributes
    ----------
    probability
        PBO: share of splits in which the trial that is best in sample ranks in the lower half out of sample.
    median_logit
        Of the out-of-sample relative rank; below 0 where PBO is above .5.
    loss_probability
        Share of splits in which the trial that is best in sample has a Sharpe ratio below 0 out of sample.
    """

    probability: float
    median_logit: float
    loss_probability: float
    splits: int
    trials: int


def overfitting(returns: npt.ArrayLike, blocks: int = PBO_BLOCKS) -> Overfitting:
    """Return the probability of backtest overfitting by CSCV with Sharpe ratios; a diagnostic, no test.

    Bailey, Borwein, Lopez de Prado and Zhu (2017), "The Probability of Backtest Overfitting", section 3. Equal
    ranks are averaged; a trial without dispersion in a half has Sharpe ratio 0 there.

    Parameters
    ----------
    returns
        Shape (K, T): session returns in excess of cash of all trials. NaN is refused.
    blocks
        Even number of contiguous blocks; their sizes differ by at most one session.

    Raises
    ------
    DataError
        If there are fewer than two trials, fewer sessions than two a block, or an odd number of blocks.
    """
    x = finite("returns", returns, 2)
    trials, sessions = x.shape
    if trials < 2 or blocks < 2 or blocks % 2 or sessions < 2 * blocks:
        raise DataError(
            f"CSCV needs 2 trials and an even number of blocks of 2 sessions or more; found {trials}, {blocks} blocks, T {sessions}"
        )
    pieces = np.array_split(x, blocks, axis=1)
    sums = np.array([piece.sum(axis=1) for piece in pieces])
    squares = np.array([(piece * piece).sum(axis=1) for piece in pieces])
    sizes = np.array([piece.shape[1] for piece in pieces], dtype=np.float64)
    halves = list(combinations(range(blocks), blocks // 2))
    chosen = np.zeros((len(halves), blocks))
    np.put_along_axis(chosen, np.array(halves), 1.0, axis=1)
    inside = _sharpe(chosen, sums, squares, sizes)
    outside = _sharpe(1 - chosen, sums, squares, sizes)
    winner = inside.argmax(axis=1)
    own = np.take_along_axis(outside, winner[:, None], axis=1)
    rank = (outside < own).sum(axis=1) + ((outside == own).sum(axis=1) + 1) / 2
    relative = rank / (trials + 1)
    logits = np.log(relative / (1 - relative))
    return Overfitting(float((logits <= 0).mean()), float(np.median(logits)), float((own < 0).mean()), len(halves), trials)


@dataclass(frozen=True)
class SeedSpread:
    """One number over seeds: the interquartile mean, the share above 0, the extremes."""

    seeds: int
    interquartile_mean: float | None
    share_positive: float | None
    lowest: float | None
    highest: float | None


def seed_spread(values: npt.ArrayLike) -> SeedSpread:
    """Return the interquartile mean (a quarter cut from each end; Agarwal et al. 2021) and its company; None of none.

    Raises
    ------
    DataError
        If a value is NaN or infinite.
    """
    x = finite("values", values)
    if len(x) == 0:
        return SeedSpread(0, None, None, None, None)
    return SeedSpread(len(x), float(stats.trim_mean(x, 0.25)), float((x > 0).mean()), float(x.min()), float(x.max()))


def _draw_counts(indices: IntArray) -> FloatArray:
    """Return how often each draw holds each session, shape (T, draws): a mean over a draw is one product with it."""
    draws, sessions = indices.shape
    flat = (indices + np.arange(draws)[:, None] * sessions).ravel()
    return np.ascontiguousarray(np.bincount(flat, minlength=draws * sessions).reshape(draws, sessions).T, dtype=np.float64)


def _stationary_variance(x: FloatArray, block: float) -> FloatArray:
    """Return the stationary bootstrap's variance of sqrt(T) times each row's mean; Hansen (2005), appendix; shape (K,)."""
    sessions = x.shape[1]
    spectrum = np.fft.rfft(x - x.mean(axis=1, keepdims=True), n=2 * sessions)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, n=2 * sessions)[:, :sessions] / sessions
    lag, stay = np.arange(1, sessions), 1 - 1 / block
    kernel = (1 - lag / sessions) * stay**lag + lag / sessions * stay ** (sessions - lag)
    return np.asarray(np.maximum(covariance[:, 0] + 2 * covariance[:, 1:] @ kernel, 0.0))


def _sharpe(chosen: FloatArray, sums: FloatArray, squares: FloatArray, sizes: FloatArray) -> FloatArray:
    count = (chosen @ sizes)[:, None]
    mean = chosen @ sums / count
    variance = chosen @ squares / count - mean**2  # ddof 0: the factor is the same for all trials of a split
    # A variance below the rounding of its two terms is none.
    varies = variance > 1e-13 * (chosen @ squares / count)
    return np.where(varies, mean / np.sqrt(np.where(varies, variance, 1.0)), 0.0)
