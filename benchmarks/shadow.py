"""Shadow replay: policy, orders, every risk check, the journal on disk; 20 symbols x 2,609 sessions on one core.

The peer runs the same targets event by event without a policy, risk checks or a journal: backtrader. Both are measured
in CPU seconds of this process, and their final values are compared, so that they do the same work. A long replay shows
that a session costs the same at the end as at the beginning.

    PYTHONPATH=src python benchmarks/shadow.py
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

# One core, also for the matrix products: set before NumPy loads.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import backtrader as bt
import numpy as np
import pandas as pd
import yaml

from quanto.core.config import load_section
from quanto.core.rng import generator
from quanto.env.tape import Tape
from quanto.execution.brokers.sim import SimConfig, SimMarket
from quanto.execution.compiler import OrderRules
from quanto.execution.desk import Terms
from quanto.execution.engine import Strategy
from quanto.execution.feed import Feed, build_feed
from quanto.execution.journal import Journal, read_journal
from quanto.execution.limits import RiskPolicy
from quanto.execution.orders import Status
from quanto.execution.replay import Plan, replay
from quanto.market.calendar import DateArray, sessions_between
from quanto.market.panel import Panel
from quanto.policy.artefact import Policy, save_policy
from quanto.policy.decision import decide, prepare
from quanto.policy.market_data import MarketData
from quanto.policy.network import Sizes, layer_shapes
from quanto.policy.observation import fit_scaler
from quanto.portfolio.constraints import Limits
from quanto.runtime.composition import compose_params
from quanto.stages.train.config import TrainConfig

ROOT = Path(__file__).parents[1]
SESSIONS, SYMBOLS, MEMBERS = 2609, 20, 5
LONG_SESSIONS, LONG_SYMBOLS = 50_000, 3
WARM_UP = 260  # sessions of history before the first decision: a beta must be known
GOAL_PER_SECOND, GOAL_RATIO, GOAL_DRIFT = 600.0, 4.0, 1.15
# Below 1, so that no purchase is cut for cash: the peer would reject it instead.
LIMITS = Limits(max_weight=0.35, max_exposure=0.95, minimum_cash=0.0, max_turnover=1.0)
NO_FRICTIONS = SimConfig(slippage_bps=0.0, fee_bps=0.0, volume_share=None, reject_rate=0.0, whole_shares=False)
RULES = OrderRules(
    fractional=True, lot_shares=1, minimum_notional_usd=0.0, worst_case_slippage_bps=0.0, unsettled_proceeds="usable", collar_orders=True
)


def market(days: DateArray, symbols: int) -> tuple[Panel, Tape]:
    rng = generator(1, "shadow benchmark")
    shape = (len(days), symbols)
    close = 50 * np.exp(np.cumsum(0.012 * rng.standard_normal(shape) - 0.00007, axis=0))
    opens = close * np.exp(0.004 * rng.standard_normal(shape))
    ones, zeros, yes = np.ones(shape), np.zeros(shape), np.ones(shape, dtype=bool)
    volume = np.full(shape, 1e9)
    names = tuple(f"S{index:02d}" for index in range(symbols))
    panel = Panel(days, names, opens, np.maximum(opens, close), np.minimum(opens, close), close, volume, ones, zeros)
    nothing = np.zeros(shape[0])
    return panel, Tape(opens, close, yes, yes, ones, zeros, np.full(shape, np.nan), nothing, nothing, zeros)


def ppo_policy(folder: Path, data: MarketData) -> Policy:
    """Return an ensemble like the default experiment's; its weights are drawn, as speed does not ask for skill."""
    config = load_section("train", compose_params(ROOT, [])["train"], TrainConfig)
    architecture = config.architecture
    scaler = fit_scaler(data.features, data.market, data.eligible, data.asset_columns, data.market_columns, 5.0)
    actions = config.action_map.size(len(data.symbols))
    sizes = Sizes(len(data.symbols), len(data.asset_columns), len(data.market_columns), actions)
    rng = generator(1, "weights")
    shapes = layer_shapes(architecture, sizes)
    members = {seed: {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()} for seed in range(MEMBERS)}
    spec: dict[str, Any] = {
        "algorithm": "ppo",
        "architecture": architecture.model_dump(mode="json"),
        "action_map": config.action_map.model_dump(mode="json"),
        "observation": {"feature_set": "b", "regime_feature_set": "b", "symbols": list(data.symbols), "scaler": scaler.to_dict()},
        "shield": {**config.shield.model_dump(mode="json"), "column": "m0"},
        "constraints": {"max_weight": 0.35, "max_exposure": 0.95, "minimum_cash": 0.0, "max_turnover": 1.0},
        "train_start": str(data.sessions[0]),
        "train_end": str(data.sessions[0]),
        "training": {},
    }
    return save_policy(folder, spec, members)


def policy_strategy(folder: Path, panel: Panel, tape: Tape) -> Strategy:
    rng = generator(1, "features")
    sessions, symbols = panel.close.shape
    data = MarketData(
        panel, tape, tuple(f"a{index}" for index in range(8)), tuple(f"m{index}" for index in range(4)),
        rng.normal(size=(sessions, symbols, 8)), rng.uniform(0.1, 0.3, (sessions, 4)), np.ones((sessions, symbols), dtype=bool),
    )  # fmt: skip
    policy = ppo_policy(folder, data)
    seen = prepare(policy, data)
    return Strategy(
        experiment=policy.digest,
        decide=lambda t, weights, drawdown: decide(policy, seen, t, weights, drawdown),
        observation=lambda t: seen.asset[t].tobytes() + seen.market[t].tobytes(),
        exposure_cap=seen.exposure_cap,
        policy_age=np.zeros(sessions),
    )


def random_strategy(sessions: int, symbols: int) -> Strategy:
    wishes = 0.9 * generator(1, "wishes").dirichlet(np.ones(symbols), sessions)
    return Strategy("long", lambda t, _w, _d: wishes[t], lambda t: wishes[t].tobytes(), np.ones(sessions), np.zeros(sessions))


def terms(**limits: object) -> Terms:
    policy = yaml.safe_load((ROOT / "conf/execution/risk.yaml").read_text())
    # The market of the benchmark is no market: beta, volume and loss are checked, and never bind.
    wide = {"max_beta": 1e3, "max_gap_loss": 1e3, "halt_drawdown": 1.0, "reduce_only_drawdown": 1.0, "max_order_notional_usd": 1e12}
    return Terms(LIMITS, RULES, RiskPolicy(**{**policy, "restricted": (), **wide, **limits}))


def run(folder: Path, feed: Feed, tape: Tape, strategy: Strategy, on_session: Callable[[int], None] = lambda _: None) -> float:
    """Replay onto disk and return the final NAV."""
    path = folder / "journal.jsonl"
    path.unlink(missing_ok=True)
    volume = np.full(tape.close.shape, 1e9)
    with Journal(path) as journal:
        book = replay(
            feed, SimMarket(tape, feed.sessions, feed.symbols, volume), strategy, terms(), NO_FRICTIONS, 1,
            Plan(WARM_UP, len(feed.sessions), 1e6), journal, on_session,
        )  # fmt: skip
    if book.halted or any(order.status == Status.DENIED for order in book.orders.values()):
        raise SystemExit(f"the benchmark was stopped by a limit: {book.halted or 'denied orders'}")
    return book.nav


class Targets(bt.Strategy):  # type: ignore[misc]  # backtrader has no types
    """Order the recorded targets at each close; they fill at the next open."""

    params = (("targets", None),)

    def next(self) -> None:
        """Order what leads to this close's targets."""
        row = self.p.targets.get(self.data.datetime.date(0))
        if row is None:
            return
        value = self.broker.getvalue()
        excess = {data._name: self.getposition(data).size * data.close[0] - row[data._name] * value for data in self.datas}
        for data in sorted(self.datas, key=lambda item: -excess[item._name]):  # sales first: they pay for the purchases
            self.order_target_percent(data, target=row[data._name])


class Fractional(bt.CommissionInfo):  # type: ignore[misc]  # as above
    """Shares without rounding, as backtrader's documentation shows it."""

    def getsize(self, price: float, cash: float) -> float:
        """Return the shares that cash buys."""
        return float(cash / price)


def backtrader_value(panel: Panel, targets: dict[date, dict[str, float]], check_cash: bool = True) -> tuple[float, float]:
    """Return the final value of the peer, and its CPU seconds without the making of the data frames.

    Parameters
    ----------
    check_cash
        Whether it looks at the cash when an order is submitted, as it does by default; without, it only does when it fills.
    """
    cerebro = bt.Cerebro()
    cerebro.broker.setcash(1e6)
    cerebro.broker.addcommissioninfo(Fractional())
    cerebro.broker.set_checksubmit(check_cash)
    index = pd.to_datetime(panel.sessions)
    for column, name in enumerate(panel.symbols):
        bars = {field: getattr(panel, field)[:, column] for field in ("open", "high", "low", "close", "volume")}
        cerebro.adddata(bt.feeds.PandasData(dataname=pd.DataFrame(bars, index=index)), name=name)
    cerebro.addstrategy(Targets, targets=targets)
    started = time.process_time()
    cerebro.run()
    return float(cerebro.broker.getvalue()), time.process_time() - started


def flat_cost(folder: Path) -> tuple[float, float]:
    """Return CPU milliseconds per session of the first and of the last fifth of a long replay (fast blocks of each)."""
    days = np.datetime64("1900-01-01") + np.arange(LONG_SESSIONS + WARM_UP)
    panel, tape = market(days, LONG_SYMBOLS)
    feed = build_feed(panel, tape, 252)
    clock: list[float] = []
    run(folder, feed, tape, random_strategy(len(days), LONG_SYMBOLS), lambda _: clock.append(time.process_time()))
    blocks = np.diff(np.array(clock)[::250]) / 250 * 1e3
    fifth = len(blocks) // 5
    # The first block fills caches; the low decile ignores what the machine does beside.
    return float(np.quantile(blocks[1 : fifth + 1], 0.1)), float(np.quantile(blocks[-fifth:], 0.1))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        panel, tape = market(sessions_between(date(2005, 1, 3), date(2025, 12, 31))[: SESSIONS + WARM_UP], SYMBOLS)
        feed = build_feed(panel, tape, 252)
        strategy = policy_strategy(folder / "policy", panel, tape)
        nav, ours, wall = 0.0, float("inf"), float("inf")
        for _ in range(2):
            started, clock = time.process_time(), time.perf_counter()
            nav = run(folder, feed, tape, strategy)
            ours, wall = min(ours, time.process_time() - started), min(wall, time.perf_counter() - clock)
        decisions = [event for event in read_journal(folder / "journal.jsonl") if event["kind"] == "decision"]
        targets = {date.fromisoformat(str(event["decided_on"])): dict(event["targets"]) for event in decisions}  # type: ignore[call-overload]  # JSON
        events = sum(1 for _ in read_journal(folder / "journal.jsonl"))
        (value, peer), (other, unchecked) = backtrader_value(panel, targets), backtrader_value(panel, targets, check_cash=False)
        if not max(abs(value / nav - 1), abs(other / nav - 1)) <= 1e-6:
            raise SystemExit(f"the peer ends with {value} and {other}, the replay with {nav}: they did not do the same work")
        first, last = flat_cost(folder)
    speed, peer_speed = SESSIONS / ours, SESSIONS / peer
    print(
        f"replay {speed:.0f} sessions per CPU second ({SESSIONS / wall:.0f} by the wall clock, {events} events on disk); "
        f"backtrader {peer_speed:.0f}, without its check of cash at submission {SESSIONS / unchecked:.0f}; "
        f"long replay {first:.3f} ms a session at the beginning, {last:.3f} at the end"
    )
    print(
        json.dumps(
            [
                {
                    "name": "shadow_replay", "value": round(speed, 1), "unit": "sessions per CPU second",
                    "peer": "backtrader with its defaults; no policy, risk checks or journal", "ratio": round(speed / peer_speed, 2),
                    "goal": GOAL_PER_SECOND, "ok": speed >= GOAL_PER_SECOND and speed >= GOAL_RATIO * peer_speed,
                },
                {
                    "name": "shadow_flat_cost", "value": round(last, 4), "unit": "ms per session, last fifth of 50,000",
                    "peer": "the first fifth", "ratio": round(first / last, 3), "goal": round(1 / GOAL_DRIFT, 3),
                    "ok": last <= GOAL_DRIFT * first,
                },
            ]
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
