"""What the leak proof is applied to: every column, eligibility, regime labels, and the assembled observation."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from quanto.core.errors import ConfigError, DataError
from quanto.market.panel import BoolArray, FloatArray
from quanto.market.split import resolve_split
from quanto.policy.observation import Scaler, assemble, fit_scaler
from quanto.stages.features.compute import Features, compute, compute_columns
from quanto.stages.features.config import FeaturesConfig, Selection, select_columns
from quanto.stages.features.proof import Claim, choose_cuts, prove
from quanto.stages.features.view import MarketView

OBSERVED = "observation:"


@dataclass(frozen=True)
class OutputBuilder:
    """Builds all that the proof compares from a view; picklable, because it holds nothing but the configuration."""

    config: FeaturesConfig
    train_start: np.datetime64
    train_end: np.datetime64

    def __call__(self, view: MarketView, names: frozenset[str] | None = None) -> Mapping[str, FloatArray]:
        """Return columns, eligibility, labels and the scaled observation; with `names` those columns only."""
        selection = select_columns(self.config)
        if names is not None:
            columns = [column for column in (*selection.asset, *selection.market) if column.name in names]
            return compute_columns(view, columns)
        features = compute(view, selection)
        return {**features.outputs(), **self._observation(features)}

    def _observation(self, features: Features) -> dict[str, FloatArray]:
        asset, market = stack(features)
        names = (*features.asset, *features.market)
        try:
            scaler = self._fit(features, asset, market)
        except ConfigError:
            # A view that was cut inside the train window: nothing of it is compared before the window's end, and a
            # builder that cannot scale where it must does not pass, because a number is compared with nothing.
            blocks = (*np.moveaxis(np.full_like(asset, np.nan), 2, 0), *np.full_like(market, np.nan).T)
            return dict(zip((OBSERVED + name for name in names), blocks, strict=True))
        seen = assemble(asset, market, features.eligible, scaler)
        return dict(zip((OBSERVED + name for name in names), (*np.moveaxis(seen.asset, 2, 0), *seen.market.T), strict=True))

    def _fit(self, features: Features, asset: FloatArray, market: FloatArray) -> Scaler:
        train = self.train_rows(features)
        names = (tuple(features.asset), tuple(features.market))
        return fit_scaler(asset[train], market[train], features.eligible[train], *names, self.config.clip)

    def train_rows(self, features: Features) -> BoolArray:
        """Return which sessions lie in the train window; shape (n_sessions,)."""
        return (features.sessions >= self.train_start) & (features.sessions <= self.train_end)


def stack(features: Features) -> tuple[FloatArray, FloatArray]:
    """Return the columns as blocks (n_sessions, n_symbols, n_asset_columns) and (n_sessions, n_market_columns)."""
    shape = (len(features.sessions), len(features.symbols))
    asset = np.stack(list(features.asset.values()), axis=-1) if features.asset else np.empty((*shape, 0))
    market = np.stack(list(features.market.values()), axis=-1) if features.market else np.empty((shape[0], 0))
    return asset, market


def output_builder(config: FeaturesConfig, view: MarketView) -> OutputBuilder:
    """Return the builder for a configuration; the train window is that of the sessions from start_date on."""
    sessions = view.sessions[view.sessions >= np.datetime64(config.start_date)]
    split = resolve_split(sessions, config.split)
    return OutputBuilder(config, np.datetime64(split.train_start), np.datetime64(split.train_end))


def claims(selection: Selection, after_train: np.datetime64, *, labelled: bool = True) -> dict[str, Claim]:
    """Return what each output of `OutputBuilder` claims; the observation is compared after the train window.

    Parameters
    ----------
    after_train
        The last train session: up to it a scaled value knows the whole train window, by design.
    labelled
        Whether any session has a regime label: history shorter than the warm-up has none, and nothing to prove.
    """
    out: dict[str, Claim] = {}
    for column in selection.asset:
        out[column.name] = Claim(column.lookback, np.nan if column.required else None)
    for column in selection.market:
        out[column.name] = Claim(column.lookback, None)
    out["eligible"] = Claim(None, 0.0, varies=False)
    if labelled:
        out["high_volatility"] = Claim(None, None, varies=False)
        out |= {name: Claim(None, None) for name in ("enter_threshold", "exit_threshold")}
    for column in (*selection.asset, *selection.market):
        absent = 0.0 if column.axis == "asset" else None
        out[OBSERVED + column.name] = Claim(None, absent, after_train)
    return out


def audit(view: MarketView, config: FeaturesConfig, executor: Executor | None = None, *, every_session: bool = False) -> dict[str, object]:
    """Return the leak proof of a configuration on a view, at `proof_sessions` sessions or at every one from start_date on.

    Cuts are drawn from the sessions where every column that ever has a value has one.

    Raises
    ------
    DataError
        If no session has values of all columns.
    """
    selection = select_columns(config)
    build = output_builder(config, view)
    features = compute(view, selection)
    blocks = [values if values.ndim == 1 else values.T for values in (*features.market.values(), *features.asset.values())]
    seen = [np.isfinite(values) if values.ndim == 1 else np.isfinite(values).any(axis=0) for values in blocks]
    complete = np.logical_and.reduce([rows for rows in seen if rows.any()] or [np.zeros(len(view.sessions), dtype=np.bool_)])
    started = view.sessions >= np.datetime64(config.start_date)
    rows = np.flatnonzero(complete & started)
    if len(rows) == 0:
        raise DataError("no session has values of all feature columns; the leak proof has nothing to compare. Widen start_date..end_date")
    first_test = int(np.searchsorted(view.sessions, build.train_end, side="right"))
    cuts = np.flatnonzero(started) if every_session else choose_cuts(rows, first_test, config.proof_sessions, config.seed)
    wanted = claims(selection, build.train_end, labelled=bool(features.labels.known[:-1].any()))
    return {**prove(build, wanted, view, cuts, config.seed, executor), "sessions_available": int(started.sum())}
