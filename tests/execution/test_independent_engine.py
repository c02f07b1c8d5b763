"""An engine that shares no code with ours, run on the recorded targets, has the same NAV on every session."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fakes.execution_worlds import World, navs, terms

from quanto.execution.replay import Plan
from quanto.portfolio.constraints import Limits

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("seed", "cost"), [(21, 0.0), (22, 5e-4)])
def test_vectorbt_on_the_recorded_targets_agrees(seed: int, cost: float) -> None:
    import vectorbt as vbt

    sessions = 120
    world = World(seed, sessions=sessions, symbols=5, quiet=True, linear=cost)
    # Exposure stays below 1, so that no purchase is cut for cash: the two engines cut differently.
    book, journal = world.replay(Plan(1, sessions, 1e6), conditions=terms(Limits(0.4, 0.9, 0.0, 1.0)))
    assert book.halted == ""
    targets = [list(event["targets"].values()) for event in journal.replay() if event["kind"] == "decision"]
    index, names = pd.to_datetime(world.feed.sessions), list(world.feed.symbols)
    weights = pd.DataFrame([*targets, [np.nan] * 5], index=index, columns=names)
    close, opens = (pd.DataFrame(table, index=index, columns=names) for table in (world.tape.close, world.tape.open))
    portfolio = vbt.Portfolio.from_orders(
        close,
        size=weights.shift(1),
        size_type="targetpercent",
        price=opens,
        val_price=close.shift(1).bfill(),
        fees=cost,
        init_cash=1e6,
        cash_sharing=True,
        group_by=True,
        call_seq="auto",
    )
    np.testing.assert_allclose(navs(journal), portfolio.value().to_numpy(), rtol=1e-9)
