"""What the gates see: one candidate's out-of-sample record beside its baselines, and the facts around it.

Alignment, everywhere the same: row t of every array is one session; its label was known before its open, its exposure
is that at its close (after trading at its open), its return runs from the close before to its close.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from quanto.market.regimes import episodes

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Book:
    """One book's record; shapes (n_sessions,). Returns are simple and net of costs, turnover is one-way."""

    returns: FloatArray
    exposure: FloatArray
    turnover: FloatArray


@dataclass(frozen=True)
class Labels:
    """Causal labels of the sessions; shapes (n_sessions,). A session without a label belongs to neither side."""

    high: BoolArray
    known: BoolArray

    @property
    def calm(self) -> BoolArray:
        """Labelled, and not of high volatility."""
        return self.known & ~self.high

    @property
    def turbulent(self) -> BoolArray:
        """Labelled as of high volatility."""
        return self.known & self.high

    @property
    def episode_count(self) -> int:
        """The number of contiguous runs of high volatility."""
        return len(episodes(self.turbulent))


@dataclass(frozen=True)
class Trials:
    """Every look at sessions of this holdout.

    Attributes
    ----------
    count
        K: the trials of the ledger (the candidate's own included) and the declared prior ones; None where unknown.
    missing
        Trials that overlap this holdout and whose daily returns are not there, by id.
    faults
        What is wrong with the ledger itself (a broken chain), one sentence each.
    candidates, baselines
        Shape (count, n_sessions), in excess of cash, the candidate in row 0; None where not every vector covers all sessions.
    """

    count: int | None
    missing: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    candidates: FloatArray | None = None
    baselines: FloatArray | None = None


@dataclass(frozen=True)
class SealedBlock:
    """What the one opening of the sealed block showed: a veto, never evidence for an edge."""

    sessions: int
    violations: int
    drawdown: float
    p_inferior: float


@dataclass(frozen=True)
class Facts:
    """What is known about the record besides returns; None means missing, and fails.

    Attributes
    ----------
    decisions, violations
        Decisions compared with the limits, and breaches found, one or more per decision.
    cash_breaches
        Sessions on which cash after costs lay below the floor.
    conditions
        Per book (candidate, baseline, matched, champion): the digests of sessions, costs, cash and eligibility.
    leak_sessions, leak_mismatches
        Of the leak proof: sessions compared and values that differed.
    data_faults
        Sentences of the canonical report that forbid use; an empty tuple says it was read and is clean.
    fresh_sessions
        Shadow or paper sessions that did not exist in the candidate's lineage.
    """

    decisions: int | None = None
    violations: int | None = None
    cash_breaches: int | None = None
    trades: int | None = None
    conditions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    leak_sessions: int | None = None
    leak_mismatches: int | None = None
    data_faults: tuple[str, ...] | None = None
    selection: str | None = None
    fresh_sessions: int | None = None
    sealed: SealedBlock | None = None


@dataclass(frozen=True)
class Evidence:
    """Everything that a gate may read.

    Attributes
    ----------
    cash
        Shape (n_sessions,): the return of cash.
    baseline, matched
        The baseline, and its mix held at the candidate's own mean gross exposure.
    members
        Shape (n_seeds, n_sessions): returns of each seed's book.
    doubled
        Shape (2, n_sessions): returns of candidate and baseline at twice the costs; None where missing.
    saboteurs
        Admissible books that do harm on purpose. A gate that none of them can fail is vacuous.
    """

    candidate: Book
    baseline: Book
    matched: Book
    cash: FloatArray
    labels: Labels
    members: FloatArray
    doubled: FloatArray | None
    trials: Trials
    facts: Facts
    champion: Book | None = None
    saboteurs: tuple[Book, ...] = ()
    seed: int = 0

    @property
    def sessions(self) -> int:
        """The number of out-of-sample sessions."""
        return len(self.candidate.returns)

    @property
    def ragged(self) -> tuple[str, ...]:
        """The series that do not cover the candidate's sessions, by name; nothing can be judged while there is one."""
        series: dict[str, npt.NDArray[np.generic]] = {"cash": self.cash, "labels.high": self.labels.high, "labels.known": self.labels.known}
        books = {"candidate": self.candidate, "baseline": self.baseline, "matched": self.matched}
        books |= {} if self.champion is None else {"champion": self.champion}
        for name, book in books.items():
            series |= {f"{name}.returns": book.returns, f"{name}.exposure": book.exposure, f"{name}.turnover": book.turnover}
        series |= {f"member {number}": row for number, row in enumerate(self.members)}
        series |= {} if self.doubled is None else {f"double costs {number}": row for number, row in enumerate(self.doubled)}
        rows = (("trial", self.trials.candidates), ("trial's baseline", self.trials.baselines))
        series |= {f"{name} {number}": row for name, block in rows if block is not None for number, row in enumerate(block)}
        return tuple(name for name, values in series.items() if values.shape != (self.sessions,))

    def excess(self, book: Book) -> FloatArray:
        """Return a book's returns in excess of cash; shape (n_sessions,)."""
        return book.returns - self.cash
