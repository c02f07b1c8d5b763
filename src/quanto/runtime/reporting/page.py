"""The page: sections rendered into one HTML file that works offline, on light and dark screens, wide and narrow."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from quanto.core.store import write_bytes
from quanto.runtime.reporting.sections import read_files, sections
from quanto.runtime.revisions import Revision

TEMPLATE = Path(__file__).with_name("page.html.j2")
FOLDER = Path("reports/html")
CONFIGURATION = {"displayModeBar": False, "responsive": True}


def render(revision: Revision) -> bytes:
    """Return the report of a revision as one HTML page.

    Raises
    ------
    MissingDataError
        If the revision has not been evaluated, or its tables are in no cache at hand.
    """
    files = read_files(revision)
    params = revision.read_yaml("params.yaml")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    parts = sections(files)
    drawn = {
        (part.anchor, index): Markup(  # noqa: S704  # plotly escapes the names that it is given
            picture.figure.to_html(full_html=False, include_plotlyjs=False, config=CONFIGURATION, div_id=f"{part.anchor}-{index}")
        )
        for part in parts
        for index, picture in enumerate(part.pictures)
    }
    page = template.render(
        name=str(params.get("name", "")),
        revision=revision.label,
        experiment=revision.experiment_id(),
        sections=parts,
        drawn=drawn,
        plotly=Markup(get_plotlyjs()),  # noqa: S704  # the library itself, from the pinned package
    )
    return page.encode()


def write_page(workspace: Path, revision: Revision, out: Path | None = None) -> Path:
    """Write the report of a revision and return its path: `reports/html/<experiment id>.html`, ignored by git."""
    path = out or workspace / FOLDER / f"{revision.experiment_id()[:12]}.html"
    write_bytes(path, render(revision))
    return path
