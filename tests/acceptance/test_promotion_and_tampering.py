"""From a fresh clone to a signed candidate tag, and every way to falsify the chain behind it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from fakes.desk import Desk, calibrated, prepare

pytestmark = pytest.mark.acceptance

RESEARCH, CANDIDATE = "policy#research#1", "policy#candidate#2"


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder = tmp_path_factory.mktemp("promoted") / "desk"
    folder.mkdir()
    desk = prepare(folder, "planted_edge")
    calibrated(desk)
    desk.dvc("repro")
    desk.quanto("ledger", "seal")
    desk.dvc("repro")
    desk.git("add", "-A")
    desk.git("commit", "-q", "-m", "planted edge")
    desk.quanto("promote-experiment", "--experiment-id", "HEAD", "--tier", "research", "--reason", "found")
    desk.quanto("promote-experiment", "--experiment-id", "HEAD", "--tier", "candidate", "--reason", "gates passed")
    return desk


def test_the_untouched_chain_holds(promoted: Desk) -> None:
    done = promoted.verify(CANDIDATE)
    assert done.returncode == 0, done.stdout
    assert "BROKEN" not in done.stdout
    assert promoted.git("status", "--porcelain") == ""


def test_the_same_statement_again_changes_nothing_and_another_is_refused(promoted: Desk) -> None:
    again = promoted.quanto("promote-experiment", "--experiment-id", "HEAD", "--tier", "candidate", "--reason", "gates passed")
    assert "nothing changed" in again.stdout
    other = promoted.quanto("promote-experiment", "--experiment-id", "HEAD", "--tier", "candidate", "--reason", "another", check=False)
    assert other.returncode == 1
    assert "another statement" in other.stderr


def test_production_is_refused_with_every_rule_that_is_broken(promoted: Desk) -> None:
    done = promoted.quanto("promote-experiment", "--experiment-id", "HEAD", "--tier", "production", "--reason", "greed", check=False)
    assert done.returncode == 1
    for rule in ("universe_v1", "fresh_evidence_v1", "keeps no sealed block"):
        assert rule in done.stderr


def test_gto_reads_the_tags(promoted: Desk) -> None:
    shown = promoted.run("gto", "show", "policy").stdout
    assert "v1.0.0" in shown
    assert "candidate" in shown


def test_a_second_clone_verifies_from_the_cache_and_names_what_it_lacks(promoted: Desk, tmp_path: Path) -> None:
    other = Desk(tmp_path)
    subprocess.run(["git", "clone", "-q", str(promoted.clone), str(other.clone)], check=True)
    shutil.copy(promoted.folder / "signers", tmp_path / "signers")
    other.environment["QUANTO_DATA_ROOT"] = promoted.environment["QUANTO_DATA_ROOT"]
    other.connect()
    assert other.verify(CANDIDATE).returncode == 0
    other.environment["QUANTO_DATA_ROOT"] = str(tmp_path / "empty")
    other.connect()
    without = other.verify(CANDIDATE)
    assert without.returncode == 1
    assert "in no cache or remote" in without.stdout


def test_a_revocation_stops_the_promotion(promoted: Desk, tmp_path: Path) -> None:
    desk = promoted.copy(tmp_path / "desk")
    desk.quanto("revoke", CANDIDATE, "--reason", "data error")
    done = desk.verify(CANDIDATE)
    assert done.returncode == 1
    assert "revoked" in done.stdout


TRACKED_FILES = (
    "dvc.lock",
    "params.yaml",
    "reports/ledger/snapshot.jsonl",
    "reports/promotion/promotion_record.json",
    "reports/promotion/qualification_report.json",
    "reports/promotion/calibration.json",
    "reports/promotion/MODEL_CARD.md",
    "reports/evaluation/metrics.json",
    "reports/evaluation/regime_slices.json",
    "reports/evaluation/trial.json",
    "reports/evaluation/evaluation.json",
    "reports/features/leak_proof.json",
    "reports/canonical/canonical_report.json",
    "reports/training/summary.json",
    "reports/shadow/metrics.json",
    *(f"reports/manifests/{stage}.json" for stage in ("ingest", "canonical", "features", "train", "eval", "qualify", "promote", "shadow")),
    "src/quanto/stages/eval/stage.py",
    "conf/reference/corporate_actions.csv",
    "requirements.lock",
)
DATA_FILES = (
    "data/payloads",
    "data/raw",
    "data/canonical",
    "data/features",
    "models",
    "reports/evaluation/returns.parquet",
    "reports/evaluation/equity.csv",
    "reports/training/curves.csv",
    "reports/shadow/journal.jsonl",
    "reports/shadow/sessions.parquet",
)


def flip(content: bytes, place: int) -> bytes:
    """Change one character so that text stays text: a digit or letter becomes another one."""
    for index in range(place, len(content)):
        byte = content[index : index + 1]
        if byte.isalnum():
            return content[:index] + (b"1" if byte != b"1" else b"2") + content[index + 1 :]
    return flip(content, 0)


@pytest.mark.parametrize("name", TRACKED_FILES)
def test_one_changed_character_in_a_committed_file_is_found(promoted: Desk, tmp_path: Path, name: str) -> None:
    desk = promoted.copy(tmp_path / "desk")
    path = desk.clone / name
    path.write_bytes(flip(path.read_bytes(), len(path.read_bytes()) // 2))
    desk.git("commit", "-q", "-a", "--amend", "--no-edit")
    plain = desk.verify("HEAD")
    assert plain.returncode == 1, f"{name}: {plain.stdout}"
    assert "BROKEN" in plain.stdout
    # A tag that is moved to the forged commit no longer speaks of it.
    raw = subprocess.run(["git", "cat-file", "tag", CANDIDATE], cwd=desk.clone, check=True, capture_output=True).stdout
    moved = raw.replace(raw.split(b"\n")[0], b"object " + desk.git("rev-parse", "HEAD").encode())
    forged = (
        subprocess.run(["git", "hash-object", "-t", "tag", "-w", "--stdin"], cwd=desk.clone, check=True, capture_output=True, input=moved)
        .stdout.decode()
        .strip()
    )
    desk.git("update-ref", f"refs/tags/{CANDIDATE}", forged)
    tagged = desk.verify(CANDIDATE)
    assert tagged.returncode == 1
    assert "signature" in tagged.stdout


@pytest.mark.parametrize("output", DATA_FILES)
def test_one_changed_byte_in_the_cache_is_found(promoted: Desk, tmp_path: Path, output: str) -> None:
    import yaml

    desk = promoted.copy(tmp_path / "desk")
    stages = yaml.safe_load((desk.clone / "dvc.lock").read_text())["stages"]
    entry = next(item for stage in stages.values() for item in stage["outs"] if item["path"] == output)
    objects = desk.root / "dvc-cache/files/md5"
    md5 = entry["md5"]
    if md5.endswith(".dir"):
        md5 = json.loads((objects / md5[:2] / md5[2:]).read_text())[0]["md5"]
    victim = objects / md5[:2] / md5[2:]
    content = victim.read_bytes()
    assert content, f"{output} is empty: choose another file"
    victim.chmod(0o644)
    victim.unlink()
    victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = desk.verify(CANDIDATE)
    assert done.returncode == 1, done.stdout
    assert any("BROKEN" in line and output in line for line in done.stdout.splitlines()), done.stdout


def test_a_changed_tag_message_is_found(promoted: Desk, tmp_path: Path) -> None:
    desk = promoted.copy(tmp_path / "desk")
    raw = subprocess.run(["git", "cat-file", "tag", CANDIDATE], cwd=desk.clone, check=True, capture_output=True).stdout
    for forged_raw in (raw.replace(b"gates passed", b"gates_passed"), raw.replace(b"AAAA", b"AAAB", 1)):
        forged = (
            subprocess.run(
                ["git", "hash-object", "-t", "tag", "-w", "--stdin"], cwd=desk.clone, check=True, capture_output=True, input=forged_raw
            )
            .stdout.decode()
            .strip()
        )
        desk.git("update-ref", f"refs/tags/{CANDIDATE}", forged)
        done = desk.verify(CANDIDATE)
        assert done.returncode == 1
        assert "signature" in done.stdout


def test_a_rebuild_reproduces_all_eight_stages_and_names_a_changed_one(promoted: Desk, tmp_path: Path) -> None:
    done = promoted.quanto("verify", CANDIDATE, "--rebuild", "--signers", str(promoted.folder / "signers"))
    assert done.stdout.count(": reproduced") == 8
    desk = promoted.copy(tmp_path / "desk")
    source = desk.clone / "src/quanto/stages/promote/card.py"
    source.write_text(source.read_text().replace("# ", "#  ", 1) if "# " in source.read_text() else source.read_text() + "\n")
    desk.git("commit", "-q", "-a", "-m", "one character")
    from quanto.runtime.rebuild import rebuild

    outcome = rebuild(desk.clone, "HEAD")
    assert outcome["promote"].startswith("changed")
    assert outcome["train"] == "reproduced"
