"""Closed tables of named, versioned, frozen entries: the plug-in points of Quanto."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar

from quanto.core.errors import ConfigError, UnknownNameError


class Named(Protocol):
    """What an entry must have: a name that never changes its meaning."""

    @property
    def name(self) -> str: ...


EntryT = TypeVar("EntryT", bound=Named)


class Registry(Mapping[str, EntryT]):
    """An ordered table from name to entry that nothing can be added to after it was made.

    Raises
    ------
    ConfigError
        If two entries carry the same name.
    """

    def __init__(self, kind: str, *entries: EntryT) -> None:
        self.kind = kind
        self._entries: dict[str, EntryT] = {}
        for entry in entries:
            if entry.name in self._entries:
                raise ConfigError(f"two entries of the {kind} registry are called {entry.name!r}; a name is given once")
            self._entries[entry.name] = entry

    def __getitem__(self, name: str) -> EntryT:
        """Return the entry called `name`.

        Raises
        ------
        UnknownNameError
            If there is none; gives the closest match and all known names.
        """
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(unknown_name(self.kind, name, list(self._entries))) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries


def unknown_name(kind: str, name: str, known: list[str]) -> str:
    """Return the sentence for a name that nothing carries: closest match, then the full list."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    return f"no {kind} is called {name!r}.{guess} Known: {', '.join(known) or 'none'}."
