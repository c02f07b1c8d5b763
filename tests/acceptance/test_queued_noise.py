"""Twenty queued experiments on noise, two at a time: every look is counted, luck is not promoted, a hidden look is found."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from fakes.desk import Desk, calibrated, prepare

from quanto.core.chain import Link, append, chain_bytes, read_chain

pytestmark = pytest.mark.acceptance

EXPERIMENTS = 20
POLL_SECONDS = 3.0
LIMIT_SECONDS = 1800.0


def waited(desk: Desk) -> None:
    """Wait until no task of DVC's queue waits or runs."""
    pause = threading.Event()
    for _ in range(int(LIMIT_SECONDS / POLL_SECONDS)):
        tasks = [line.split()[-1] for line in desk.run("dvc", "queue", "status").stdout.splitlines() if line.strip()]
        if not {"Queued", "Running"} & set(tasks):
            return
        pause.wait(POLL_SECONDS)
    raise AssertionError(desk.run("dvc", "queue", "status").stdout)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder = tmp_path_factory.mktemp("noise") / "desk"
    folder.mkdir()
    desk = prepare(folder, "pure_noise")
    calibrated(desk)
    desk.dvc("repro")
    desk.git("add", "-A")
    desk.git("commit", "-q", "-m", "noise")
    small = ("-S", "policy_params.timesteps=20000", "-S", "train.seeds=[0,1]", "-S", "train.yardstick=null", "-S", "runtime.workers=1")
    desk.dvc("exp", "run", "--queue", "-S", f"train.seed=range(100,{100 + EXPERIMENTS})", *small)
    desk.dvc("queue", "start", "-j", "2")
    waited(desk)
    desk.quanto("ledger", "sync")
    return desk


def trials(desk: Desk) -> dict[str, Link]:
    chain = read_chain((desk.root / "ledger/ledger.jsonl").read_bytes(), "test")
    return {str(link.body["trial_id"]): link for link in chain if link.kind == "trial" and isinstance(link.body, dict)}


def test_all_twenty_are_in_the_ledger_though_their_candidates_were_rejected(swept: Desk) -> None:
    before = {json.loads((swept.clone / "reports/evaluation/trial.json").read_text())["trial_id"]}
    shown = json.loads(swept.run("dvc", "exp", "show", "--json").stdout)
    names = [name for row in shown for name in (row.get("experiments") or [])]
    assert len(names) == EXPERIMENTS
    found = trials(swept)
    # The committed snapshot of the clone may hold trials of other holdouts.
    own = [link for link in found.values() if link.body["sessions"][0] >= "2006-01-03" and link.body["sessions"][-1] <= "2012-12-31"]
    assert len({str(link.body["trial_id"]) for link in own} - before) == EXPERIMENTS
    again = swept.quanto("ledger", "sync").stdout
    assert again.startswith("0 trials appended")


def test_the_luckiest_of_twenty_is_not_promoted_to_production(swept: Desk, tmp_path: Path) -> None:
    desk = swept.copy(tmp_path / "best")
    refs = desk.git("for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
    experiments = [ref.rsplit("/", 1)[1] for ref in refs if ref.count("/") == 4 and "/exec/" not in ref and "celery" not in ref]
    alphas = {}
    for name in experiments:
        ref = next(ref for ref in refs if ref.endswith(f"/{name}"))
        alphas[name] = json.loads(desk.git("show", f"{ref}:reports/evaluation/metrics.json"))["alpha_t_statistic"]
    assert len(alphas) == EXPERIMENTS
    best = max(alphas, key=lambda name: alphas[name])
    desk.dvc("exp", "apply", best)
    desk.quanto("ledger", "seal")
    desk.dvc("repro")
    report = json.loads((desk.clone / "reports/promotion/qualification_report.json").read_text())
    assert report["trials"]["count"] >= EXPERIMENTS + 1
    assert report["trials"]["faults"] == []
    assert report["verdicts"]["production"]["decision"] != "promote"
    desk.git("add", "-A")
    desk.git("commit", "-q", "-m", "the luckiest")
    done = desk.quanto("promote-experiment", "--experiment-id", "HEAD", "--tier", "production", "--reason", "it shone", check=False)
    assert done.returncode == 1
    assert "is not promoted to production" in done.stderr


@pytest.mark.parametrize("forge", ["cut out", "forged anew"])
def test_a_dropped_record_is_detected_and_nothing_is_sealed(swept: Desk, tmp_path: Path, forge: str) -> None:
    desk = swept.copy(tmp_path / "dropped")
    desk.quanto("ledger", "seal")
    desk.git("add", "-A")
    desk.git("commit", "-q", "-m", "sealed")
    path = desk.root / "ledger/ledger.jsonl"
    chain = read_chain(path.read_bytes(), "test")
    victim = str(list(trials(desk))[-3])
    if forge == "cut out":
        path.write_bytes(
            b"".join(link.line() for link in chain if not (isinstance(link.body, dict) and link.body.get("trial_id") == victim))
        )
    else:
        kept: tuple[Link, ...] = ()
        for link in chain:
            if not (isinstance(link.body, dict) and link.body.get("trial_id") == victim):
                kept = (*kept, append(kept, link.kind, link.body))
        path.write_bytes(chain_bytes(kept))
    checked = desk.quanto("ledger", "check", check=False)
    assert checked.returncode == 1
    assert "record" in checked.stdout if forge == "cut out" else victim in checked.stdout
    promoted = desk.quanto("promote-experiment", "--experiment-id", "HEAD", "--tier", "research", "--reason", "r", check=False)
    assert promoted.returncode == 1
