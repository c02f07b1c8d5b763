"""The configuration of the features stage, and what it selects from the registry."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal, Self

from pydantic import Field, model_validator

from quanto.core.config import Section
from quanto.core.errors import ConfigError
from quanto.core.registry import unknown_name
from quanto.market.regimes import LABELLERS, RegimeLabeller
from quanto.market.split import SplitConfig
from quanto.stages.features.column import FeatureColumn
from quanto.stages.features.registry import FEATURE_SETS

MINIMUM_PROOF_SESSIONS = 64


class FeaturesConfig(Section):
    """What to compute, for which names and sessions, and how widely to prove it."""

    symbols: tuple[str, ...] = Field(min_length=1)
    start_date: date
    end_date: date
    feature_set: str
    regime_feature_set: str | None
    columns: tuple[str, ...] | None
    market_columns: tuple[str, ...] | None
    selection: Literal["point_in_time", "hindsight"]
    membership: str | None
    index_series: str | None
    vix_series: str | None
    regime_labeller: str
    eligible_lookback_sessions: int | None = Field(ge=0)
    minimum_history_sessions: int = Field(ge=0)
    clip: float = Field(gt=0)
    split: SplitConfig
    proof_sessions: int = Field(ge=MINIMUM_PROOF_SESSIONS)
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = []
        if self.start_date >= self.end_date:
            faults.append(f"end_date must lie after start_date, found {self.start_date} to {self.end_date}")
        repeated = sorted({name for name in self.symbols if self.symbols.count(name) > 1})
        if repeated:
            faults.append(f"symbols repeat {', '.join(repeated)}")
        if self.selection == "point_in_time" and self.membership is None:
            faults.append("membership is null, but universe.selection is point_in_time: name the list of canonical.sources.membership")
        try:
            select_columns(self)
        except ConfigError as error:
            faults.append(str(error))
        if faults:
            raise ValueError("; ".join(faults))
        return self


@dataclass(frozen=True)
class Selection:
    """The columns and the rules that a configuration asks for, in output order."""

    asset: tuple[FeatureColumn, ...]
    market: tuple[FeatureColumn, ...]
    labeller: RegimeLabeller
    eligible_lookback_sessions: int | None
    minimum_history_sessions: int

    @property
    def domains(self) -> frozenset[str]:
        """Every domain that some column reads."""
        return frozenset[str]().union(*(column.reads for column in (*self.asset, *self.market)))

    def holds_back(self, column: FeatureColumn) -> bool:
        """Return whether a name without this column's value may not be held."""
        limit = self.eligible_lookback_sessions
        return column.required and (limit is None or (column.lookback is not None and column.lookback <= limit))


def select_columns(config: FeaturesConfig) -> Selection:
    """Return the columns of the configured sets: asset columns of `feature_set`, market columns of both, once each.

    Raises
    ------
    ConfigError
        If a set, column or labeller is unknown, `feature_set` has no asset column, or `regime_feature_set` has one.
    """
    composed = FEATURE_SETS[config.feature_set]
    regime = FEATURE_SETS[config.regime_feature_set].columns if config.regime_feature_set is not None else ()
    foreign = [column.name for column in regime if column.axis == "asset"]
    if foreign:
        found = f"regime_feature_set {config.regime_feature_set!r} has asset columns ({', '.join(foreign)})"
        raise ConfigError(f"{found}; it may have market columns only, asset columns come from feature_set")
    if not composed.asset_columns:
        found = f"feature_set {config.feature_set!r} has market columns only"
        raise ConfigError(f"{found}; name it as regime_feature_set, and a set with asset columns as feature_set")
    market = {column.name: column for column in (*composed.market_columns, *regime)}
    return Selection(
        asset=_subset("asset column", composed.asset_columns, config.columns),
        market=_subset("market column", tuple(market.values()), config.market_columns),
        labeller=LABELLERS[config.regime_labeller],
        eligible_lookback_sessions=config.eligible_lookback_sessions,
        minimum_history_sessions=config.minimum_history_sessions,
    )


def _subset(kind: str, columns: tuple[FeatureColumn, ...], wanted: tuple[str, ...] | None) -> tuple[FeatureColumn, ...]:
    if wanted is None:
        return columns
    known = {column.name: column for column in columns}
    faults = [unknown_name(kind, name, list(known)) for name in wanted if name not in known]
    if len(set(wanted)) < len(wanted) or not wanted:
        faults.append(f"name each {kind} once, and at least one; found {', '.join(wanted) or 'none'}")
    if faults:
        raise ConfigError(" ".join(faults))
    return tuple(known[name] for name in wanted)
