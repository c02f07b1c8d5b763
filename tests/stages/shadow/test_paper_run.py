"""`run-paper` from files to orders: a workspace of that morning, the promoted policy, and a paper account on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from fakes.alpaca_trading import KEY, NEW_YORK, SECRET, FakeAlpaca, TradingClock
from fakes.evaluation import canonical_tables, feature_tables, write_workspace
from fakes.shadow import shadow_config

from quanto.cli.parser import run as quanto
from quanto.core.errors import ConfigError, ExecutionError, GovernanceError
from quanto.core.store import read_json, write_json, write_table
from quanto.execution.account import lease
from quanto.execution.brokers.alpaca_http import AlpacaConfig
from quanto.execution.journal import read_journal
from quanto.execution.paper import ExitCode, PaperConfig, PaperRun
from quanto.market.calendar import sessions_between
from quanto.policy.artefact import Policy
from quanto.stages.shadow.paper import account_folder, run_paper
from quanto.stages.shadow.stage import replay_into

FIRST = 688  # the first session traded, of 700; no split and no dividend follows
DATES = {"equity_ohlcv": "session", "corporate_actions": "known_on", "index_level": "session"}


# Replays that are compared with the account follow its rules for orders.
RULES = {f"orders__{name}": value for name, value in PaperConfig().orders.model_dump().items()}


class Office:
    """Mornings at the desk: what the pipeline has written by then, and the account at the broker."""

    def __init__(self, folder: Path, policy: Policy, fake: FakeAlpaca) -> None:
        self.folder, self.policy, self.fake = folder, policy, fake
        self.tables = canonical_tables()
        features, regime = feature_tables(self.tables)
        self.features = features, regime.append_column("high_volatility", [[False] * len(regime)])
        self.days = np.unique(self.tables["equity_ohlcv"]["session"].to_numpy()).astype(object).tolist()
        self.paper = PaperConfig(broker=AlpacaConfig(base_url=fake.base_url, read_seconds=2.0, fill_deadline_seconds=20.0))
        self.account = account_folder(self.paper)
        # Cents that the fake rounds to are no break of a small account.
        self.config = shadow_config(risk__cash_tolerance_usd=1.0)
        write_json(
            folder / "reports/promotion/promotion_record.json", {"eligible_tiers": ["research", "candidate"], "policy": policy.digest}
        )

    def pipeline(self, day: int) -> None:
        """Write what is known on the morning of a session: everything up to the close before."""
        last = pa.scalar(self.days[day - 1])
        for name, table in self.tables.items():
            known = table.filter(pc.less_equal(table[DATES[name]], last))
            for old in (self.folder / "data/canonical" / name).rglob("*.parquet"):
                old.unlink()
            write_table(self.folder / "data/canonical" / name / "part.parquet", known)
        for name, table in zip(("features", "regime"), self.features, strict=True):
            write_table(self.folder / f"data/features/{name}.parquet", table.filter(pc.less_equal(table["session"], last)))

    def quotes(self, day: int) -> None:
        bars = self.tables["equity_ohlcv"]
        bars = bars.filter(pc.equal(bars["session"], pa.scalar(self.days[day])))
        prices = zip(bars["symbol"].to_pylist(), bars["open"].to_pylist(), strict=True)
        self.fake.quotes |= {symbol: Decimal(f"{price:.4f}") for symbol, price in prices}

    def morning(self, day: int, at: time = time(8, 45), known: int | None = None) -> PaperRun:
        self.pipeline(day if known is None else known)
        self.quotes(day)
        self.fake.clock.set(datetime.combine(self.days[day], at, NEW_YORK))
        return run_paper(self.config, self.paper, self.folder, self.fake.clock)

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [dict(event) for event in read_journal(self.account / "journal.jsonl") if event["kind"] == kind]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Policy]:
    folder = tmp_path_factory.mktemp("paper")
    return folder, write_workspace(folder)


@pytest.fixture
def office(made: tuple[Path, Policy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    monkeypatch.setenv("APCA_API_KEY_ID", KEY)
    monkeypatch.setenv("APCA_API_SECRET_KEY", SECRET)
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "root"))
    monkeypatch.delenv("DVC_ROOT", raising=False)
    with FakeAlpaca(TradingClock(datetime(2004, 1, 2, 8, 45, tzinfo=NEW_YORK))) as fake:
        assert isinstance(fake, FakeAlpaca)
        office = Office(*made, fake)
        first, last = office.days[FIRST - 5], office.days[-1]
        trading = set(sessions_between(first, last).astype(object).tolist())
        fake.holidays = {day for day in (first + timedelta(n) for n in range((last - first).days)) if day not in trading}
        yield office


def test_three_mornings_trade_three_sessions_and_leave_a_summary_of_each(office: Office) -> None:
    for day in range(FIRST, FIRST + 3):
        run = office.morning(day)
        assert (run.code, run.session) == (ExitCode.OK, office.days[day]), run.message
        summary: Any = read_json(office.account / f"summaries/{office.days[day]}.json")
        assert summary["session"] == office.days[day].isoformat()
        held = {symbol: float(shares) for symbol, shares in office.fake.positions.items()}
        assert summary["positions_shares"] == pytest.approx(held, abs=1e-6)
        assert summary["cash_usd"] == pytest.approx(float(office.fake.cash), abs=1.0)
        text = (office.account / f"summaries/{office.days[day]}.md").read_text()
        assert text.startswith(f"# Paper session {office.days[day]}")
        assert "State: normal" in text
        events = list(read_journal(office.account / "journal.jsonl", summary["journal"]["head"]))
        assert len(events) == summary["journal"]["events"]
    assert [event["session"] for event in office.events("end")] == [day.isoformat() for day in office.days[FIRST : FIRST + 3]]
    assert office.fake.posts > 3
    log = [json.loads(line) for line in (office.account / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in log] == ["ok"] * 3


def test_paper_wants_on_the_first_morning_what_shadow_wants(office: Office, tmp_path: Path) -> None:
    """What was not known that morning changes nothing: shadow replays the same session with all data there are now."""
    assert office.morning(FIRST).code == ExitCode.OK
    (paper,) = office.events("decision")
    office.pipeline(len(office.days))
    day = str(office.days[FIRST])
    replay_into(tmp_path / "shadow", shadow_config(start_date=day, end_date=day, nav_usd=100_000.0, **RULES), office.folder)
    (shadow,) = [event for event in read_journal(tmp_path / "shadow/journal.jsonl") if event["kind"] == "decision"]
    for name in ("session", "decided_on", "observation", "targets", "cap"):
        assert paper[name] == shadow[name], name


def test_a_second_run_of_the_morning_and_a_day_without_a_session_send_nothing(office: Office) -> None:
    office.morning(FIRST)
    posts, journal = office.fake.posts, (office.account / "journal.jsonl").read_bytes()
    assert "already" in office.morning(FIRST, at=time(9, 50)).message
    saturday = next(day for day in (office.days[FIRST] + timedelta(n) for n in range(7)) if day.weekday() == 5)
    calls = len(office.fake.calls)
    office.fake.clock.set(datetime.combine(saturday, time(8, 45), NEW_YORK))
    run = run_paper(office.config, office.paper, office.folder, office.fake.clock)
    assert (run.code, run.session) == (ExitCode.OK, None)
    assert len(office.fake.calls) == calls
    assert (office.fake.posts, (office.account / "journal.jsonl").read_bytes()) == (posts, journal)


def test_a_pipeline_that_did_not_run_is_an_alert_and_no_order(office: Office) -> None:
    run = office.morning(FIRST, known=FIRST - 1)
    assert run.code == ExitCode.STALE_DATA
    assert int(run.code) != 0
    assert office.fake.calls == []
    (line,) = (office.account / "log.jsonl").read_text().splitlines()
    assert (json.loads(line)["event"], json.loads(line)["level"]) == ("stale_data", "ERROR")


def test_mornings_that_nobody_ran_are_caught_up_without_trading(office: Office) -> None:
    office.morning(FIRST)
    held, posts = dict(office.fake.positions), office.fake.posts
    late = office.morning(FIRST + 1, at=time(11, 0))
    assert (late.code, office.fake.posts, office.fake.positions) == (ExitCode.TOO_LATE, posts, held)
    assert office.morning(FIRST + 4).code == ExitCode.OK
    missed = [day.isoformat() for day in office.days[FIRST + 1 : FIRST + 4]]
    assert [event["session"] for event in office.events("missed")] == missed
    assert len(office.events("decision")) == 2
    orders = {row["id"] for event in office.events("orders") for row in event["rows"]}
    assert not [name for name in orders if any(day.replace("-", "") in name for day in missed)]
    assert len(office.events("mark")) == 5


def test_without_promotion_nothing_is_asked_of_the_broker(office: Office) -> None:
    write_json(office.folder / "reports/promotion/promotion_record.json", {"eligible_tiers": ["research"], "policy": office.policy.digest})
    with pytest.raises(GovernanceError, match="not for candidate"):
        office.morning(FIRST)
    assert office.fake.calls == []


def test_a_missing_key_is_named_and_a_wrong_one_is_nowhere_on_disk(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APCA_API_SECRET_KEY")
    with pytest.raises(ConfigError, match="APCA_API_SECRET_KEY"):
        office.morning(FIRST)
    monkeypatch.setenv("APCA_API_SECRET_KEY", "wrong-but-secret")
    with pytest.raises(ExecutionError, match="refuses the keys") as caught:
        office.morning(FIRST)
    written = b"".join(path.read_bytes() for path in office.account.rglob("*") if path.is_file())
    assert b"wrong-but-secret" not in written + str(caught.value).encode()
    assert office.fake.posts == 0


def test_a_second_instance_of_the_account_is_refused(office: Office) -> None:
    with lease(office.account), pytest.raises(ExecutionError, match="one instance per account"):
        office.morning(FIRST)
    assert office.fake.calls == []


def test_a_foreign_position_halts_until_the_command_lifts_it(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    office.morning(FIRST)
    posts = office.fake.posts
    office.fake.quotes["GME"], office.fake.positions["GME"] = Decimal(20), Decimal(5)
    run = office.morning(FIRST + 1)
    assert (run.code, office.fake.posts) == (ExitCode.HALTED, posts)
    assert "GME" in run.message
    text = (office.account / f"summaries/{office.days[FIRST + 1]}.md").read_text()
    assert "**halted**" in text
    del office.fake.positions["GME"]
    assert office.morning(FIRST + 2).code == ExitCode.HALTED, "the halt holds though its cause is gone"
    assert quanto(["risk", "resume", "--operator", "officer"]) != 0, "without a reason nothing is lifted"
    assert office.morning(FIRST + 3).code == ExitCode.HALTED
    assert quanto(["risk", "resume", "--reason", "sold by hand", "--operator", "officer"]) == 0
    (event,) = office.events("resume")
    assert (event["reason"], event["operator"]) == ("sold by hand", "officer")
    assert "GME" in event["lifted"]
    assert office.morning(FIRST + 4).code == ExitCode.OK
    assert office.fake.posts > posts
    capsys.readouterr()


def test_the_kill_switch_of_the_command_line_holds_through_restarts(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    assert quanto(["risk", "status"]) == 0
    assert quanto(["risk", "halt", "--reason", "vendor outage"]) == 0
    assert quanto(["risk", "status"]) != 0
    for day in (FIRST, FIRST + 1):
        run = office.morning(day)
        assert (run.code, office.fake.posts) == (ExitCode.HALTED, 0)
        assert "vendor outage" in run.message
    assert quanto(["risk", "resume", "--reason", "vendor is back", "--operator", "officer"]) == 0
    assert office.morning(FIRST + 2).code == ExitCode.OK
    assert office.fake.posts > 0
    capsys.readouterr()


def test_a_break_that_stays_is_adopted_by_the_command(office: Office, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    office.morning(FIRST)
    symbol = min(office.fake.positions)
    office.fake.positions[symbol] += 3
    office.fake.cash -= 60
    assert office.morning(FIRST + 1).code == ExitCode.HALTED
    capsys.readouterr()
    assert quanto(["risk", "status"]) != 0
    assert symbol in capsys.readouterr().out
    lift = ["risk", "resume", "--reason", "bought by hand", "--operator", "officer"]
    assert quanto(lift) == 0
    assert office.morning(FIRST + 2).code == ExitCode.HALTED, "book and broker still differ"
    path = tmp_path / "paper.yaml"
    path.write_text(f"account: paper\nbroker: {{base_url: '{office.fake.base_url}'}}\n")
    assert quanto([*lift, "--adopt", "--config", str(path)]) == 0
    flows = {flow["symbol"]: (flow["kind"], flow["shares"], flow["cash"]) for flow in office.events("resume")[-1]["flows"]}
    assert flows[symbol] == ("adjustment", pytest.approx(3.0, abs=1e-6), 0.0)
    assert flows[""][2] == pytest.approx(-60.0, abs=1.0)
    assert office.morning(FIRST + 3).code == ExitCode.OK
    capsys.readouterr()
