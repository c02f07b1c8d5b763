"""What a page is made of: cells, tables, sections; and how numbers become text for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from quanto.runtime.reporting.figures import Picture

GOOD, BAD, OPEN = "good", "bad", "open"
MOODS = {
    "passed": GOOD,
    "failed": BAD,
    "insufficient": OPEN,
    "vacuous": OPEN,
    "promote": GOOD,
    "insufficient evidence": OPEN,
    "reject": BAD,
    "holds": GOOD,
    "does not hold": BAD,
}
MISSING = "n/a"
# Metrics that are fractions are shown in per cent; every metric that is not listed is a ratio.
FORMS = {
    "alpha": ".1%",
    "annual_log_growth": ".1%",
    "annual_return": ".1%",
    "annual_volatility": ".1%",
    "baseline_annual_return": ".1%",
    "baseline_max_drawdown": ".1%",
    "cvar": ".2%",
    "drawdown_within_episodes": ".1%",
    "exposure_max": ".0%",
    "exposure_mean": ".0%",
    "gross_mean": ".0%",
    "hit_rate": ".1%",
    "max_drawdown": ".1%",
    "share_positive": ".0%",
    "total_return": ".1%",
    "tracking_error": ".1%",
    "value_at_risk": ".2%",
    "sessions": ",.0f",
}


@dataclass(frozen=True)
class Cell:
    """One cell of a table: the text for people, the raw value behind it, and a mood (good, bad, open) if it has one."""

    text: str
    raw: object = None
    mood: str = ""
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A table: `prose` tables become cards on a narrow screen, `folded` ones are opened by a click."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""
    prose: bool = False
    folded: bool = False

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers, and so stands to the right."""
        return any(row[column].numeric for row in self.rows)

    def without_empty_columns(self) -> Table:
        """Return the table without the columns in which no row has a value."""
        kept = [column for column in range(len(self.head)) if any(row[column].text != MISSING for row in self.rows)]
        rows = tuple(tuple(row[column] for column in kept) for row in self.rows)
        return replace(self, head=tuple(self.head[column] for column in kept), rows=rows)


@dataclass(frozen=True)
class Card:
    """One answer that must be seen first: what was asked, the answer, why, and its mood."""

    title: str
    text: str
    detail: str = ""
    raw: object = None
    mood: str = ""


@dataclass(frozen=True)
class Section:
    """One section: a title, cards, sentences, tables, pictures and commands; `anchor` names it in links.

    `page` is the title and the HTML of a page that another stage wrote; it is shown in a frame that runs no script.
    """

    anchor: str
    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    cards: tuple[Card, ...] = ()
    warnings: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    page: tuple[str, str] = ("", "")


def number(value: object, form: str = "") -> Cell:
    """Return a number as people read it, with the raw value behind it; n/a where there is none."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return Cell(MISSING if value is None else str(value), value, numeric=value is None)
    if not form:
        form = ",.0f" if float(value).is_integer() and abs(value) < 1e9 else ".4g"
    return Cell(plain(format(value, form)), value, numeric=True)


def plain(text: str) -> str:
    """Return a formatted number without the sign of a zero."""
    return text[1:] if text[:1] in "+-" and not set(text) & set("123456789n") else text


def metric(name: str, value: object) -> Cell:
    """Return a metric in the form that its name asks for; a difference carries its sign."""
    base = name.removesuffix("_difference")
    return number(value, ("+" if base != name else "") + FORMS.get(base, ".2f"))


def status(text: object) -> Cell:
    """Return a verdict or status in its mood."""
    return Cell(str(text), text, MOODS.get(str(text), OPEN))


def digest(text: object) -> Cell:
    """Return a digest, short for people and whole behind it."""
    return Cell(str(text)[:16], text)


def flat(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the leaves of nested mappings with their dotted names; a list is one leaf."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flat(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def mapping(value: object) -> Mapping[str, object]:
    """Return the value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def text_of(value: object) -> str:
    """Return a value of a file as one line of text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {text_of(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(text_of(item) for item in value)
    return str(value)
