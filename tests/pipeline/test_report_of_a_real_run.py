"""The report of a real run: every section has what its files hold, and a browser draws it without a request."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from quanto.runtime.comparison import compare
from quanto.runtime.reporting.files import read_files
from quanto.runtime.reporting.page import render
from quanto.runtime.reporting.sections import sections
from quanto.runtime.revisions import Revision

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"


def test_every_section_of_a_real_run_has_numbers_or_pictures(small_run: Path) -> None:
    for part in sections(read_files(Revision(small_run, None, "workspace"))):
        assert part.commands or part.pictures or any(table.rows for table in part.tables), part.title
        for table in part.tables:
            widths = {len(row) for row in table.rows}
            assert widths <= {len(table.head)}, f"{part.title}: {table.title}"


def test_a_run_compared_with_itself_has_no_better_side(small_run: Path) -> None:
    run = Revision(small_run, None, "workspace")
    rows = compare([run, run])
    assert {row.section for row in rows} == {"identity", "metrics", "regimes", "gates"}
    assert not [row.name for row in rows if row.best is not None]
    assert not [row.name for row in rows if row.differences[1]]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine: the page is checked as text by tests/runtime/test_report_page.py")
def test_a_browser_draws_every_picture_at_the_width_of_its_place(small_run: Path, tmp_path: Path) -> None:
    run = Revision(small_run, None, "workspace")
    probe = """<script>addEventListener("load", () => setTimeout(() => {
      const all = [...document.querySelectorAll("figure > div")];
      const wrong = all.filter((place) => !place.querySelector("svg") || place.scrollWidth > place.clientWidth + 1);
      const sideways = document.documentElement.scrollWidth > innerWidth;
      document.title = [all.length, wrong.length, sideways, performance.getEntriesByType("resource").length].join(" ");
    }, 500))</script>"""
    page = tmp_path / "report.html"
    page.write_text(render(run).decode().replace("</body>", f"{probe}</body>"), encoding="utf-8")
    pictures = sum(len(part.pictures) for part in sections(read_files(run)))
    for width in (1440, 500):
        command = [str(BROWSER), *FLAGS.split(), f"--user-data-dir={tmp_path / str(width)}", f"--window-size={width},1000"]
        done = subprocess.run(
            [*command, "--virtual-time-budget=15000", "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
        )
        title = done.stdout.split("<title>")[1].split("</title>")[0]
        assert title == f"{pictures} 0 false 0", f"at {width} px: pictures, wrong ones, sideways scroll, requests"
