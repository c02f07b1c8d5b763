"""The quality report as one HTML page for people: tables and plots, no script, nothing loaded from elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from html import escape
from typing import Any

# Names with the most missing sessions; a page with thousands of lines helps nobody, the CSV has all.
_MOST_LINES = 60
_MOST_ROWS = 40
_WIDTH = 720

_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem; color: #1b1f24; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; margin: .6rem 0; } th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #dde2e8; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; }
.good { color: #1a7f4b; } .bad { color: #b42318; font-weight: 600; }
svg text { font: 11px system-ui, sans-serif; fill: #1b1f24; }
"""


def quality_page(report: Mapping[str, Any], details: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the page for a report (as written to canonical_report.json) and the rows of the largest differences."""
    sections = [
        _verdict(report),
        _conservation(report),
        _coverage(report["domains"]["equity_ohlcv"]["coverage"]),
        _bars("Quarantined rows by reason", [(f"{r['vendor']} · {r['domain']} · {r['reason']}", r["rows"]) for r in report["quarantine"]]),
        _disagreement(report["disagreement"]["compared"]),
        _bars(
            "Differences beyond tolerance by class",
            [(f"{r['vendor']} / {r['other']} · {r['field']} · {r['class']}", r["rows"]) for r in report["disagreement"]["classes"]],
        ),
        _largest(details),
    ]
    head = f"<meta charset='utf-8'><title>Quality of the canonical data</title><style>{_STYLE}</style>"
    body = "".join(sections)
    return f"<!doctype html><html lang='en'><head>{head}</head><body><h1>Quality of the canonical data</h1>{body}</body></html>\n".encode()


def _verdict(report: Mapping[str, Any]) -> str:
    if report["passed"]:
        return "<p class='good'>All thresholds are kept; every raw row is accounted for.</p>"
    faults = "".join(f"<li>{escape(text)}</li>" for text in report["faults"])
    return f"<p class='bad'>Thresholds are exceeded:</p><ul class='bad'>{faults}</ul>"


def _conservation(report: Mapping[str, Any]) -> str:
    names = ("rows", "selected", "superseded", "quarantined", "outside_dates")
    rows = [
        [f"{vendor} · {domain}", *(f"{counts[name]:,}" for name in names), "yes" if counts["conserved"] else "NO"]
        for domain, item in report["domains"].items()
        for vendor, counts in item["vendors"].items()
    ]
    header = ["vendor · domain", "rows in", "selected", "superseded", "quarantined", "outside the dates", "adds up"]
    return f"<h2>Where every raw row went</h2>{_table(header, rows)}"


def _coverage(coverage: Mapping[str, Mapping[str, Any]]) -> str:
    if not coverage:
        return ""
    names = sorted(coverage, key=lambda name: (-coverage[name]["missing"], name))[:_MOST_LINES]
    first = min(_day(item["first"]) for item in coverage.values())
    span = max(1, max(_day(item["last"]) for item in coverage.values()) - first)
    lines = []
    for index, name in enumerate(sorted(names)):
        item, top = coverage[name], 18 * index
        left, right = (120 + (_day(item[key]) - first) / span * _WIDTH for key in ("first", "last"))
        lines.append(f"<text x='0' y='{top + 12}'>{escape(name)}</text>")
        lines.append(f"<rect x='{left:.1f}' y='{top + 3}' width='{max(right - left, 1):.1f}' height='11' fill='#8fb4d9'/>")
        for start, end, count in item["missing_ranges"]:
            low, high = (120 + (_day(day) - first) / span * _WIDTH for day in (start, end))
            title = f"<title>{escape(name)}: {count} sessions missing, {start} to {end}</title>"
            lines.append(f"<rect x='{low:.1f}' y='{top + 3}' width='{max(high - low, 1.5):.1f}' height='11' fill='#b42318'>{title}</rect>")
        lines.append(f"<text x='{130 + _WIDTH}' y='{top + 12}'>{item['missing']} of {item['expected']} missing</text>")
    note = f"<p>{len(names)} of {len(coverage)} symbols, those with the most missing sessions; gaps in red.</p>"
    return f"<h2>Coverage against the exchange calendar</h2>{note}{_svg(18 * len(names) + 4, lines, 270)}"


def _disagreement(pairs: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [f"{p['vendor']} / {p['other']} · {p['field']}", f"{p['cells']:,}", f"{p['above']:,}", f"{100 * p['share']:.2f} %"] for p in pairs
    ]
    return f"<h2>How often vendors differ</h2>{_table(['chosen / other · field', 'compared', 'beyond tolerance', 'share'], rows)}"


def _largest(details: Sequence[Mapping[str, Any]]) -> str:
    names = ("session", "symbol", "field", "vendor", "other", "chosen_value", "other_value", "class")
    rows = [[f"{row[name]:g}" if isinstance(row[name], float) else str(row[name]) for name in names] for row in details[:_MOST_ROWS]]
    return f"<h2>The largest differences of closes</h2>{_table([name.replace('_', ' ') for name in names], rows)}"


def _bars(title: str, counts: Sequence[tuple[str, int]]) -> str:
    shown = sorted(counts, key=lambda item: (-item[1], item[0]))[:_MOST_ROWS]
    if not shown:
        return f"<h2>{title}</h2><p>None.</p>"
    scale = (_WIDTH - 240) / shown[0][1]
    lines = []
    for index, (name, count) in enumerate(shown):
        top, width = 18 * index, max(count * scale, 1)
        lines.append(f"<text x='0' y='{top + 12}'>{escape(name)}</text>")
        lines.append(f"<rect x='340' y='{top + 3}' width='{width:.1f}' height='11' fill='#c98f2b'/>")
        lines.append(f"<text x='{346 + width:.1f}' y='{top + 12}'>{count:,}</text>")
    return f"<h2>{title}</h2>{_svg(18 * len(shown) + 4, lines, 200)}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "<p>None.</p>"
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _svg(height: int, lines: Sequence[str], margin: int) -> str:
    return f"<svg width='{_WIDTH + margin}' height='{height}' role='img'>{''.join(lines)}</svg>"


def _day(text: str) -> int:
    return date.fromisoformat(text).toordinal()
