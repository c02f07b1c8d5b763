"""The page: sections rendered into one HTML file that works offline, on light and dark screens, wide and narrow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from quanto.core.store import write_bytes
from quanto.runtime.reporting.files import read_files
from quanto.runtime.reporting.parts import Section
from quanto.runtime.reporting.sections import sections
from quanto.runtime.revisions import Revision

TEMPLATE = Path(__file__).with_name("page.html.j2")
FOLDER = Path("reports/html")


def render(revision: Revision) -> bytes:
    """Return the report of a revision as one HTML page.

    Raises
    ------
    MissingDataError
        If the revision has not been evaluated, or its tables are in no cache at hand.
    """
    files = read_files(revision)
    name = str(revision.read_yaml("params.yaml").get("name", "")) or "experiment"
    return html(name, f"experiment {revision.experiment_id()} · {revision.label}", sections(files))


def html(title: str, subtitle: str, parts: Sequence[Section]) -> bytes:
    """Return sections as one self-contained page; every text is escaped, every picture is drawn by the library inside."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    drawn = {
        f"{part.anchor}-{index}": json.loads(picture.figure.to_json()) for part in parts for index, picture in enumerate(part.pictures)
    }
    # "<" as an escape: no name in a figure can close the script element.
    figures = Markup(json.dumps(drawn, separators=(",", ":")).replace("<", "\\u003c"))  # noqa: S704  # JSON without "<"
    library = Markup(get_plotlyjs())  # noqa: S704  # the library itself, from the pinned package
    page = template.render(title=title, subtitle=subtitle, sections=parts, figures=figures, plotly=library)
    return page.encode()


def write_page(workspace: Path, revision: Revision, out: Path | None = None) -> Path:
    """Write the report of a revision and return its path: `reports/html/<experiment id>.html`, ignored by git."""
    path = out or workspace / FOLDER / f"{revision.experiment_id()[:12]}.html"
    write_bytes(path, render(revision))
    return path
