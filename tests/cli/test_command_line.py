"""The quanto command explains itself: help, examples, JSON, exit codes, completion, and the README's commands."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from fakes.finished import write_finished

from quanto.cli.parser import build_parser, run
from quanto.cli.registry import COMMANDS, GROUPS
from quanto.runtime.doctor import examine

ROOT = Path(__file__).parents[2]
NAMES = [command.name for command in COMMANDS.values()]
# Each of these fails in a folder that is no checkout; the message must say what to do.
IN_AN_EMPTY_FOLDER = (
    ["report"],
    ["compare", "workspace", "HEAD"],
    ["mlflow", "sync", "nothing-of-this-name"],
    ["verify", "HEAD"],
    ["promote-experiment", "--experiment-id", "abcdef", "--tier", "research", "--reason", "why"],
    ["qualify-experiment", "--experiment-id", "workspace"],
    ["run-regime-slices"],
    ["run-experiment", "--spec", "nothing"],
    ["params"],
    ["ingest", "--dry-run"],
)


def quoted_commands(text: str) -> list[str]:
    """Return the quanto commands of a Markdown text: in backticks, and in indented code."""
    inline = re.findall(r"`(quanto [^`]+)`", text)
    indented = [line.strip().split("  #")[0] for line in text.splitlines() if re.match(r" {4,}quanto ", line)]
    return inline + indented


def parse(command: str) -> str | None:
    """Return the verb that a command line names; argparse exits where it is wrong."""
    words = shlex.split(re.split(r" [|>&] ?", command)[0])[1:]
    return getattr(build_parser().parse_args(words), "command").name  # noqa: B009  # argparse sets it


def test_the_overview_names_every_verb_in_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    text = capsys.readouterr().out
    assert {command.group for command in COMMANDS.values()} <= set(GROUPS)
    assert all(re.search(rf"^  {re.escape(name)}\s", text, re.MULTILINE) for name in NAMES)
    assert "Exit codes" in text


@pytest.mark.parametrize("name", NAMES)
def test_every_verb_has_help_with_examples_that_parse(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run([name, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert "--json" in text
    assert "examples:" in text
    examples = COMMANDS[name].examples
    assert examples
    assert {parse(example) for example in examples} == {name}


@pytest.mark.parametrize("arguments", [["no-such-verb"], ["report", "--no-such-flag"], ["promote-experiment"], ["ledger", "burn"]])
def test_a_wrong_call_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(arguments)
    assert stop.value.code == 2


@pytest.mark.parametrize("arguments", IN_AN_EMPTY_FOLDER, ids=lambda arguments: arguments[0])
def test_an_error_is_one_message_and_exit_code_1(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "root"))
    (tmp_path / "checkout").mkdir()
    assert run([*arguments, "--repo", str(tmp_path / "checkout")]) == 1
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert re.match(r"\w+Error: \S", captured.err)


@pytest.mark.parametrize("verb", [["report"], ["compare", "workspace", "workspace"], ["ledger", "check"]], ids=lambda verb: verb[0])
def test_success_is_one_line_of_json_for_machines(
    verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "root"))
    checkout = write_finished(tmp_path / "checkout")
    subprocess.run(["git", "init", "-q", str(checkout)], check=True)
    (checkout / "dvc.yaml").write_text("stages: {}\n")
    run([*verb, "--json", "--repo", str(checkout)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    json.loads(lines[0])


def test_the_comparison_is_written_as_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "root"))
    checkout = str(write_finished(tmp_path / "checkout"))
    subprocess.run(["git", "init", "-q", checkout], check=True)
    page = tmp_path / "comparison.html"
    assert run(["compare", "workspace", "workspace", "--html", str(page), "--repo", checkout]) == 0
    assert page.is_file()
    assert run(["compare", "workspace", "workspace", "--repo", checkout]) == 0
    assert "sharpe" in capsys.readouterr().out


def test_a_file_that_cannot_be_written_is_a_message_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkout = str(write_finished(tmp_path / "a"))
    (tmp_path / "file").write_text("in the way")
    subprocess.run(["git", "init", "-q", checkout], check=True)
    assert run(["report", "--out", str(tmp_path / "file" / "page.html"), "--repo", checkout]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_an_error_is_json_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "--json", "--repo", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert set(json.loads(lines[0])) == {"error", "message", "notes"}


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_a_script_that_knows_every_verb(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in NAMES)
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script.encode(), check=True)


def test_the_doctor_prints_one_line_of_json_and_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("POLYGON_API_KEY", "very-secret-value")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://user:very-secret-value@tracking.example.org")
    assert run(["doctor", "--json", "--repo", str(ROOT)]) == 0
    text = capsys.readouterr().out
    findings = json.loads(text)
    assert len(text.splitlines()) == 1
    assert "very-secret-value" not in text
    topics = {
        "python",
        "packages",
        "data root",
        "disk",
        "credentials",
        "params.yaml",
        "dvc cache",
        "dvc remote",
        "mlflow",
        "signing",
        "calendar",
    }
    assert {item["topic"] for item in findings} == topics
    assert any(item["found"] == "POLYGON_API_KEY is set" for item in findings)


def test_the_doctor_examines_a_folder_that_is_no_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "root"))
    findings = list(examine(tmp_path))
    assert any(item.topic == "packages" and item.remedy for item in findings)


def test_every_command_of_the_readme_parses() -> None:
    commands = quoted_commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(commands) > 10
    for command in commands:
        words = command.split()
        if len(words) == 2 and words[1] in NAMES:
            continue  # a mention of a verb
        if words[1:] in (["--help"], ["VERB", "--help"]):
            continue
        assert parse(command) in NAMES, command


MISTAKES = (
    (["run-experiment", "--spec", "core_v1_regime_pp"], "Did you mean 'core_v1_regime_ppo'"),
    (["run-experiment", "--spec", "core_v1_regime_ppo", "-S", "train.ppo.gama=0.9"], "did you mean train.ppo.gamma"),
    (["run-experiment", "--spec", "core_v1_regime_ppo", "-S", "train.ppo.gamma=two"], "found 'two'"),
    (["run-experiment", "--sweep", "conf/sweep/reward.yaml"], "conf/sweep/reward_and_cash.yaml"),
    (["build-canonical-datasets", "--start-date", "2000-99-01"], "YYYY-MM-DD"),
    (["qualify-experiment", "--experiment-id", "workspace", "--baseline", "equal_wait"], "Did you mean 'equal_weight_v1'"),
    (["ingest", "--config", "conf/ingest/poligon.yaml"], "polygon_equity_backfill.yaml"),
    (["verify", "policy#candidate#99"], "no tag or revision is called"),
    (["revoke", "policy#candidate#99", "--reason", "why"], "no promotion tag is called"),
    (["promote-experiment", "--experiment-id", "workspace", "--tier", "research", "--reason", "why"], "git commit"),
)


@pytest.mark.parametrize(("arguments", "advice"), MISTAKES, ids=lambda value: value[0] if isinstance(value, list) else "")
def test_a_mistake_in_a_real_checkout_is_answered_by_what_to_do(
    arguments: list[str], advice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "root"))
    checkout = write_finished(tmp_path / "checkout")
    for name in ("conf", "dvc.yaml", "params.yaml"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, checkout / name)
    subprocess.run(["git", "init", "-q", str(checkout)], check=True)
    (checkout / "reports/champion").mkdir(parents=True, exist_ok=True)
    assert run([*arguments, "--repo", str(checkout)]) == 1
    words = capsys.readouterr().err
    assert advice in words
    assert "Traceback" not in words
