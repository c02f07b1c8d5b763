"""`dvc plots show` draws the pictures that dvc.yaml names, from a page that needs no network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import yaml
from fakes.finished import write_finished

from quanto.runtime.dvc import dvc_command, dvc_environment

ROOT = Path(__file__).parents[2]


def test_the_plots_of_the_graph_are_drawn_offline(tmp_path: Path) -> None:
    write_finished(tmp_path)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    shutil.copytree(ROOT / ".dvc/plots", tmp_path / ".dvc/plots")
    shutil.copy(ROOT / ".dvc/config", tmp_path / ".dvc/config")
    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"plots": plots}), encoding="utf-8")
    command = dvc_command(["plots", "show", "-o", str(tmp_path / "out")])
    done = subprocess.run(command, cwd=tmp_path, env=dvc_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    drawn = [json.loads(text) for text in re.findall(r"var spec = (\{.*?\});\s*vegaEmbed\('", html, re.DOTALL)]
    titles = {spec["title"]["text"] for spec in drawn}
    assert {name for plot in plots for name in plot} == titles
    assert all(spec["data"]["values"] for spec in drawn)
    dated = [spec for spec in drawn if spec["encoding"]["x"]["field"] == "session"]
    assert dated
    assert {spec["encoding"]["x"]["type"] for spec in dated} == {"temporal"}, "dates on an axis of numbers draw nothing"
    assert not re.search(r"<(script|link|img)[^>]+(src|href)\s*=\s*[\"']?(https?:)?//", html)


def test_the_graph_draws_what_a_reviewer_asks_for() -> None:
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    drawn = {path for plot in graph["plots"] for part in plot.values() for path in part["y"]}
    assert drawn == {
        *(f"reports/evaluation/{name}.csv" for name in ("equity", "drawdown", "exposure", "regimes", "weights")),
        "reports/training/curves.csv",
    }
    written = {out if isinstance(out, str) else next(iter(out)) for stage in graph["stages"].values() for out in stage["outs"]}
    assert drawn <= written
    assert not any("'" in name for plot in graph["plots"] for name in plot), (
        "dvc puts the title into a JavaScript string: a quote breaks it"
    )


def test_metrics_that_dvc_compares_are_the_few_that_matter() -> None:
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    paths = [next(iter(item)) for stage in graph["stages"].values() for item in stage.get("metrics", [])]
    assert paths == ["reports/evaluation/metrics.json"]
    value = json.loads((ROOT / paths[0]).read_text(encoding="utf-8"))
    assert len([key for key, item in value.items() if not isinstance(item, list)]) <= 20, "lists are not shown by `dvc metrics diff`"
