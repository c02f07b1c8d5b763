"""The canonical section: whom to believe, how far vendors may differ, and what stops the stage."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, model_validator

from quanto.core.config import Section

Policy = Literal["priority", "consensus"]


class Override(Section):
    """Another order of vendors for some symbols (none named: all) and sessions (null: unbounded)."""

    symbols: tuple[str, ...]
    start: date | None
    end: date | None
    priority: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _ordered(self) -> Override:
        if self.start and self.end and self.end < self.start:
            raise ValueError(f"end ({self.end}) is before start ({self.start})")
        return self


class DomainSources(Section):
    """Whom to believe in one domain: the first vendor of `priority` that has a valid row; overrides come first."""

    policy: Policy
    priority: tuple[str, ...]
    overrides: tuple[Override, ...]

    @model_validator(mode="after")
    def _known(self) -> DomainSources:
        faults = [f"priority names {name} twice" for name in sorted({n for n in self.priority if self.priority.count(n) > 1})]
        for index, override in enumerate(self.overrides):
            unknown = sorted(set(override.priority) - set(self.priority))
            faults += [f"overrides.{index} names {name}, which is not in priority ({', '.join(self.priority)})" for name in unknown]
        if faults:
            raise ValueError("; ".join(faults))
        return self


class Identity(Section):
    """A ticker's meaning in time: rows of `symbol` from `start` to `end` (null: unbounded) belong to `entity`.

    `vendor` limits the rule to one vendor's rows: vendors differ in which of a company's tickers they use.
    """

    symbol: str
    start: date | None
    end: date | None
    entity: str
    vendor: str | None = None


class Membership(Section):
    """A symbol's stay in an index or universe, from `start` to `end` (null: still a member)."""

    universe: str
    symbol: str
    start: date
    end: date | None


class Sources(Section):
    """`conf/data_sources.yaml`: vendor priority per domain, the meaning of tickers, and index membership."""

    equity_ohlcv: DomainSources
    corporate_actions: DomainSources
    index_level: DomainSources
    options_surface: DomainSources
    identity: tuple[Identity, ...]
    membership: tuple[Membership, ...]
    membership_files: tuple[Annotated[str, Field(pattern=r"^conf/reference/[A-Za-z0-9_./-]+\.csv$")], ...]

    @model_validator(mode="after")
    def _whole_surfaces(self) -> Sources:
        if self.options_surface.policy != "priority":
            raise ValueError("options_surface.policy must be priority: surfaces of several vendors are never mixed")
        return self

    def domain(self, name: str) -> DomainSources:
        """Return the sources of a domain."""
        sources: DomainSources = getattr(self, name)
        return sources


class Tolerances(Section):
    """Relative differences between two vendors below which they agree, per field."""

    open: float = Field(ge=0, lt=1)
    high: float = Field(ge=0, lt=1)
    low: float = Field(ge=0, lt=1)
    close: float = Field(ge=0, lt=1)
    volume: float = Field(ge=0)
    action: float = Field(ge=0, lt=1)
    level: float = Field(ge=0, lt=1)
    volatility: float = Field(ge=0)


class Fallback(Section):
    """When a vendor of lower rank may fill the gap of a higher one: it must agree where both have rows."""

    overlap_sessions: int = Field(ge=1)
    tolerance: float = Field(gt=0, lt=1)
    agreement: float = Field(gt=0, le=1)


class Validation(Section):
    """What makes a row of one vendor unbelievable on its own."""

    bar_tolerance: float = Field(ge=0, lt=0.1)
    spike_move: float = Field(gt=0)
    spike_scales: float = Field(gt=0)
    range_move: float = Field(gt=0)
    stale_sessions: int = Field(ge=1, le=5)


class Thresholds(Section):
    """The largest share that a domain may reach before the stage fails; 1 never fails."""

    equity_ohlcv: float = Field(ge=0, le=1)
    corporate_actions: float = Field(ge=0, le=1)
    index_level: float = Field(ge=0, le=1)
    options_surface: float = Field(ge=0, le=1)

    def domain(self, name: str) -> float:
        """Return the threshold of a domain."""
        value: float = getattr(self, name)
        return value


class CanonicalConfig(Section):
    """What the canonical stage does."""

    sources: Sources
    start_date: date | None
    end_date: date | None
    tolerances: Tolerances
    fallback: Fallback
    validation: Validation
    implied_actions: bool
    match_sessions: int = Field(ge=0, le=20)
    max_missing: Thresholds
    max_disagreement: Thresholds
    partition_rows: int = Field(ge=1000)

    @model_validator(mode="after")
    def _ordered(self) -> CanonicalConfig:
        if self.start_date and self.end_date and self.end_date < self.start_date:
            raise ValueError(f"end_date ({self.end_date}) is before start_date ({self.start_date})")
        return self
