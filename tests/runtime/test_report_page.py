"""The report page: what it must show, that it is safe, and that it loads nothing."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fakes.finished import edit_json, write_finished

from quanto.core.errors import MissingDataError
from quanto.runtime.reporting.page import render, write_page
from quanto.runtime.reporting.parts import metric, number
from quanto.runtime.revisions import Revision


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return write_finished(tmp_path)


class Page(HTMLParser):
    """The page's elements: attributes that load something, scripts, and the text a person sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.titles: dict[str, str] = {}
        self.text: list[str] = []
        self._stack: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._stack.append((tag, dict(attrs)))
        self.loads += [str(value) for name, value in attrs if name in ("src", "srcset", "action", "data", "poster")]
        self.loads += [str(value) for name, value in attrs if name == "href" and tag != "a"]

    def handle_data(self, data: str) -> None:
        tag, attributes = self._stack[-1] if self._stack else ("", {})
        if tag not in ("script", "style") and data.strip():
            self.text.append(data.strip())
            if attributes.get("title") is not None:
                self.titles[data.strip()] = str(attributes["title"])


def page_of(folder: Path) -> Page:
    return Page(render(Revision(folder, None, "workspace")).decode())


def test_the_verdict_stands_before_every_number_of_performance(finished: Path) -> None:
    text = page_of(finished).text
    assert text.index("tier research") < text.index("Gates") < text.index("Performance, out of sample and net of costs")
    assert "not eligible" in text, "a tier whose gates are passed but whose record blocks it must not look promoted"
    assert any("no calibration was measured" in line for line in text)
    assert any("chosen with hindsight" in line for line in text)


def test_the_page_loads_nothing(finished: Path) -> None:
    html = render(Revision(finished, None, "workspace")).decode()
    assert Page(html).loads == ["data:,"]
    style = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert not re.search(r"url\(|@import", "".join(style[:1]))


def test_every_number_carries_its_raw_value(finished: Path) -> None:
    titles = page_of(finished).titles
    assert titles["1.2%"] == "0.0123456789"
    assert titles["12,345"] == "12345"


def test_what_the_files_hold_is_shown(finished: Path) -> None:
    text = " ".join(page_of(finished).text)
    for expected in (
        "reason high below low",
        "bad tick",
        "2010-01-07 to 2010-01-07",
        "first_vendor",
        "Status: completed.",
        "97.5%",
        "1.25e-12",
    ):
        assert expected in text, expected
    assert "limits hit: turnover" in text
    assert "3.50 bps" in text
    assert "2010-01-04 to 2010-01-07" in text, "the walk-forward fold"


def test_a_name_from_a_file_cannot_become_markup_or_script(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    honest = page_of(write_finished(tmp_path))
    page = Page(render(Revision(write_finished(tmp_path, name=evil, symbol=evil), None, evil)).decode())
    assert page.tags == honest.tags
    assert evil in page.text


def test_a_missing_leak_proof_is_a_warning_and_a_missing_verdict_is_said(finished: Path) -> None:
    (finished / "reports/features/leak_proof.json").unlink()
    (finished / "reports/promotion/qualification_report.json").unlink()
    text = " ".join(page_of(finished).text)
    assert "no number below is evidence" in text
    assert "not judged" in text


def test_a_blocked_replay_says_why(finished: Path) -> None:
    edit_json(
        finished / "reports/shadow/metrics.json", status="blocked", reason="not eligible for candidate", regimes={}, parity={}, journal={}
    )
    assert "Nothing was replayed: not eligible for candidate." in page_of(finished).text


def test_a_revision_without_an_evaluation_is_refused_with_the_command_that_helps(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="dvc repro"):
        render(Revision(tmp_path, None, "workspace"))


def test_the_page_is_written_below_reports_html_under_its_experiment_id(finished: Path) -> None:
    revision = Revision(finished, None, "workspace")
    path = write_page(finished, revision)
    assert path == finished / "reports/html" / f"{revision.experiment_id()[:12]}.html"
    assert path.read_bytes() == render(revision), "the same files give the same page"


def test_the_figures_are_json_that_holds_no_infinity(finished: Path) -> None:
    html = render(Revision(finished, None, "workspace")).decode()
    found = re.search(r"^const figures = (.*);$", html, re.MULTILINE)
    assert found is not None
    figures = json.loads(found[1], parse_constant=pytest.fail)
    assert {"performance-0", "regimes-0", "training-0", "features-0", "shadow-0"} <= set(figures)


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (-0.0001, ".1%", "0.0%"),
        (-0.1, ".1%", "-10.0%"),
        (None, "", "n/a"),
        (1234567.0, "", "1,234,567"),
        (float("nan"), ".2f", "nan"),
        (True, "", "True"),
    ],
)
def test_numbers_are_written_for_people(value: object, form: str, text: str) -> None:
    assert number(value, form).text == text


def test_a_metric_takes_the_form_of_its_name() -> None:
    assert metric("annual_return", 0.1234).text == "12.3%"
    assert metric("sharpe_difference", 0.5).text == "+0.50"
    assert metric("unknown_metric", 0.126).text == "0.13"


def test_the_canonical_stages_own_page_is_inside_and_can_run_nothing(finished: Path) -> None:
    (finished / "reports/canonical/quality.html").write_text("<h1 title=\"own\">Own page</h1><script>fetch('https://example.org')</script>")
    text = render(Revision(finished, None, "workspace")).decode()
    frame = re.findall(r"<iframe[^>]*>", text)
    assert len(frame) == 1
    assert " sandbox " in frame[0]
    assert "&lt;script&gt;" in frame[0]
    assert "Own page" in frame[0]


def test_features_show_distribution_drift_and_correlation(finished: Path) -> None:
    text = page_of(finished).text
    for title in ("Distribution of the columns", "Drift of the columns", "Feature correlation"):
        assert title in text


def test_a_column_without_numbers_is_left_out_of_the_pictures(finished: Path) -> None:
    bare = {"formula": "nothing", "coverage": 0.0, "std": None, "mean": None, "quantiles": {}, "drift": {"stability_index": None}}
    edit_json(finished / "reports/features/features.json", columns={"empty": bare})
    assert "Distribution of the columns" in page_of(finished).text
