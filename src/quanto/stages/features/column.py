"""What a feature column and a feature set declare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from quanto.market.panel import FloatArray
from quanto.stages.features.derived import Derived

EVENING = "evening of the session"


@dataclass(frozen=True, kw_only=True)
class FeatureColumn:
    """One column: what it is, what it reads, and the pure function that computes it.

    Attributes
    ----------
    axis
        `asset`: (n_sessions, n_symbols); `market`: (n_sessions,).
    lookback
        Sessions before t whose data the value at t may depend on; None: all of them (expanding).
    lag
        Sessions between t and the latest data that the value at t reads.
    known
        When the value of t is known.
    reads
        Domains of `view.DOMAINS`; a column that reads another one fails the contract suite.
    required
        Whether a name without the value may not be held. Columns that are not required have an indicator beside them.
    compute
        From the derived arrays of a view to the column, float64.
    """

    name: str
    axis: Literal["asset", "market"]
    formula: str
    unit: str
    lookback: int | None
    nan_rule: str
    source: str
    reads: frozenset[str]
    compute: Callable[[Derived], FloatArray]
    lag: int = 0
    known: str = EVENING
    required: bool = True


@dataclass(frozen=True)
class FeatureSet:
    """A named, ordered list of columns; its name and behaviour are frozen."""

    name: str
    sentence: str
    columns: tuple[FeatureColumn, ...]

    @property
    def asset_columns(self) -> tuple[FeatureColumn, ...]:
        """The columns with one value per symbol, in order."""
        return tuple(column for column in self.columns if column.axis == "asset")

    @property
    def market_columns(self) -> tuple[FeatureColumn, ...]:
        """The columns with one value per session, in order."""
        return tuple(column for column in self.columns if column.axis == "market")


def compose(name: str, sentence: str, *sets: FeatureSet) -> FeatureSet:
    """Return the set of all columns of `sets` in order; a column that two of them share stands once."""
    columns = {column.name: column for part in sets for column in part.columns}
    return FeatureSet(name, sentence, tuple(columns.values()))
