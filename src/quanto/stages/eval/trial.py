"""The trial: one look at these out-of-sample sessions, by a configuration, with the daily returns it saw."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from quanto.core.digest import digest_value
from quanto.core.store import table_digest
from quanto.env.simulation import Simulation
from quanto.policy.artefact import Policy
from quanto.stages.eval.arena import Arena
from quanto.stages.eval.config import EvalConfig

SCHEMA_VERSION = 1


def data_digests(tables: Mapping[str, pa.Table]) -> dict[str, str]:
    """Return the logical digest of every table that the evaluation read."""
    return {name: table_digest(table) for name, table in sorted(tables.items())}


def trial(
    arena: Arena, policy: Policy, config: EvalConfig, data: Mapping[str, str], candidate: Simulation, baseline: Simulation
) -> dict[str, object]:
    """Return the content of trial.json.

    `trial_id` names the look: the resolved train and eval parameters, the data and the sessions. Code, names and notes
    are no part of it; a look with equal daily returns is the same look.
    """
    sessions = [str(day) for day in arena.sessions]
    identity = {
        "train": policy.spec.training,
        "eval": config.model_dump(mode="json"),
        "data": dict(data),
        "holdout": sessions,
    }
    returns = [float(value) for value in candidate.returns]
    return {
        "schema_version": SCHEMA_VERSION,
        "trial_id": digest_value(identity),
        "returns_digest": digest_value(returns),
        "sessions": sessions,
        "returns": returns,
        "baseline": config.baseline,
        "baseline_returns": [float(value) for value in baseline.returns],
        "cash_returns": [float(value) for value in arena.cash],
        "exposure": [float(value) for value in candidate.exposure],
        "turnover": [float(value) for value in candidate.turnover],
        # As a fraction of NAV at the close before.
        "costs": [float(value) for value in candidate.cost / np.concatenate([[candidate.nav_before], candidate.nav[:-1]])],
        "conditions": arena.conditions(),
        "data": dict(data),
        "policy": policy.digest,
    }
