"""The ingest section: what is asked of which vendors, as of when."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import Field, JsonValue, model_validator

from quanto.core.config import Section, load_section
from quanto.market.calendar import FIRST
from quanto.stages.ingest.registry import VENDORS

Domain = Literal["equity_ohlcv", "corporate_actions", "options_surface", "index_level"]


class VendorEntry(Section):
    """One source of data: a kind of vendor, the domains it is asked for, and its own options."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")  # the folder of data/raw/, and the name in lineage columns
    kind: str | None = None  # an entry of the vendor registry; the name itself where it is left out
    domains: tuple[Domain, ...] = Field(min_length=1)
    interval: Literal["day", "minute"] | None = None  # of this vendor's bars; null: as the section says
    options: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def registered(self) -> str:
        """The name of this entry's kind in the registry."""
        return self.kind or self.name

    @model_validator(mode="after")
    def _known(self) -> VendorEntry:
        kind = VENDORS[self.registered]
        unserved = sorted(set(self.domains) - kind.domains)
        if unserved:
            raise ValueError(f"vendor {self.name} serves {', '.join(sorted(kind.domains))}; it does not serve {', '.join(unserved)}")
        self.typed_options()
        return self

    def typed_options(self) -> Section:
        """Return the options as the kind's own checked section.

        Raises
        ------
        ConfigError
            With every fault of the options.
        """
        return load_section(f"{self.name}.options", self.options, VENDORS[self.registered].options)


class IngestConfig(Section):
    """What the ingest stage does; dates are sessions or calendar days in New York, both bounds included."""

    symbols: tuple[str, ...] = Field(min_length=1)
    start: date
    end: date
    as_of: date
    history_sessions: int = Field(ge=0, le=2520)
    index_start: date
    series: tuple[str, ...]
    interval: Literal["day", "minute"]
    mode: Literal["auto", "rest", "flatfile"]
    offline: bool
    tail_tolerance_sessions: int = Field(ge=0)
    vendors: tuple[VendorEntry, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> IngestConfig:
        faults = [*self._date_faults(), *self._name_faults(), *self._mode_faults()]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _date_faults(self) -> list[str]:
        faults = []
        if self.end < self.start:
            faults.append(f"end ({self.end}) is before start ({self.start})")
        if self.end > self.as_of:
            faults.append(f"end ({self.end}) is after as_of ({self.as_of}): nobody can have known those sessions; move as_of on")
        faults += [f"{name} ({day}) is before {FIRST}, where the calendar begins" for name, day in self._early()]
        return faults

    def _early(self) -> list[tuple[str, date]]:
        return [(name, day) for name, day in (("start", self.start), ("index_start", self.index_start)) if day < FIRST]

    def _name_faults(self) -> list[str]:
        faults = []
        for what, names in (("symbols", self.symbols), ("series", self.series), ("vendors", [entry.name for entry in self.vendors])):
            twice = sorted({name for name in names if list(names).count(name) > 1})
            if twice:
                faults.append(f"{what} names {', '.join(twice)} more than once")
        return faults

    def _mode_faults(self) -> list[str]:
        if self.mode == "auto":
            return []
        return [
            f"mode is {self.mode}; vendor {entry.name} serves {', '.join(sorted(VENDORS[entry.registered].modes))} only, asked was {domain}"
            for entry in self.vendors
            for domain in entry.domains
            if not any(self.mode in VENDORS[item.registered].modes for item in (entry, *self.counterparts(entry, domain)))
        ]

    def counterparts(self, entry: VendorEntry, domain: str) -> tuple[VendorEntry, ...]:
        """Return the entries that serve the same vendor's data of a domain the other way: files for requests, or requests for files."""
        kind = VENDORS[entry.registered]

        def same(other: VendorEntry) -> bool:
            asked = domain in other.domains and (other.interval or self.interval) == (entry.interval or self.interval)
            return asked and (kind.bulk_of == other.registered or VENDORS[other.registered].bulk_of == entry.registered)

        return tuple(other for other in self.vendors if same(other))
