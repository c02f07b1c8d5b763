"""The landing store: what was answered stays, by content, and the first answer for a date stands."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.core.digest import digest_bytes
from quanto.core.errors import IntegrityError, MissingDataError
from quanto.stages.ingest.landing import LandingStore, redact, redact_url
from quanto.stages.ingest.vendor import Shard

REQUEST = {"method": "GET", "url": "https://vendor.example/bars/AAPL?from=2020-01-02", "page": "1"}
MONDAY, TUESDAY = date(2026, 1, 5), date(2026, 1, 6)


def store(root: Path, day: date = MONDAY, **options: bool) -> LandingStore:
    return LandingStore(root, day, clock=lambda: datetime(2026, 1, 7, 12, 0, tzinfo=UTC), **options)


def test_an_answer_is_found_again_byte_for_byte(tmp_path: Path) -> None:
    body = b'{"c": 1.50}\r\n\x00'
    put = store(tmp_path).put(REQUEST, body, 200, {"Content-Type": "application/json"})
    found = store(tmp_path).find(REQUEST)
    assert found == put
    assert found is not None
    assert (found.body, found.status, found.sha256) == (body, 200, digest_bytes(body))
    assert found.received_at == "2026-01-07T12:00:00+00:00"
    assert (tmp_path / "objects" / put.sha256[:2] / put.sha256).read_bytes() == body


def test_the_order_of_a_request_does_not_matter(tmp_path: Path) -> None:
    store(tmp_path).put(REQUEST, b"x")
    assert store(tmp_path).find(dict(reversed(list(REQUEST.items())))) is not None


def test_another_as_of_fetches_again(tmp_path: Path) -> None:
    store(tmp_path, MONDAY).put(REQUEST, b"x")
    assert store(tmp_path, TUESDAY).find(REQUEST) is None
    assert store(tmp_path, date(2026, 1, 4)).find(REQUEST) is None


def test_a_changed_answer_at_a_later_date_is_a_recorded_restatement(tmp_path: Path) -> None:
    store(tmp_path, MONDAY).put(REQUEST, b"old")
    new = store(tmp_path, TUESDAY).put(REQUEST, b"new")
    (restated,) = store(tmp_path).restatements()
    assert (restated.old_sha256, restated.new_sha256) == (digest_bytes(b"old"), digest_bytes(b"new"))
    assert (restated.old_as_of, restated.new_as_of) == ("2026-01-05", "2026-01-06")
    assert new.body == b"new"
    assert store(tmp_path, MONDAY).find(REQUEST).body == b"old"  # type: ignore[union-attr]


def test_an_equal_answer_at_a_later_date_is_no_restatement(tmp_path: Path) -> None:
    store(tmp_path, MONDAY).put(REQUEST, b"same")
    store(tmp_path, TUESDAY).put(REQUEST, b"same")
    assert list(store(tmp_path).restatements()) == []


def test_the_first_answer_for_a_date_stands_and_the_second_is_kept_beside_it(tmp_path: Path) -> None:
    first = store(tmp_path).put(REQUEST, b"first")
    second = store(tmp_path).put(REQUEST, b"second")
    assert second == first
    assert store(tmp_path).find(REQUEST) == first
    (restated,) = store(tmp_path).restatements()
    assert restated.new_sha256 == digest_bytes(b"second")
    assert store(tmp_path).body(digest_bytes(b"second")) == b"second"


def test_nothing_that_was_written_is_ever_changed(tmp_path: Path) -> None:
    store(tmp_path, MONDAY).put(REQUEST, b"first")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    store(tmp_path, MONDAY).put(REQUEST, b"second")
    store(tmp_path, TUESDAY).put(REQUEST, b"third")
    assert {path: path.read_bytes() for path in before} == before
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_request_that_names_its_digest_is_answered_at_any_date(tmp_path: Path) -> None:
    pinned = {"kind": "package_member", "member": "a.csv", "sha256": digest_bytes(b"x")}
    store(tmp_path, MONDAY).put(pinned, b"x")
    found = store(tmp_path, TUESDAY, offline=True).find(pinned)
    assert found is not None
    assert found.body == b"x"


def test_an_answer_that_is_not_what_the_request_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="expected bytes with SHA-256"):
        store(tmp_path).put({"kind": "file", "sha256": digest_bytes(b"x")}, b"y")
    assert not (tmp_path / "requests").exists()


@pytest.mark.parametrize("ruin", [b"", b"other", b"xx"])
def test_a_body_that_changed_on_disk_is_found(tmp_path: Path, ruin: bytes) -> None:
    sha256 = store(tmp_path).put(REQUEST, b"x").sha256
    (tmp_path / "objects" / sha256[:2] / sha256).write_bytes(ruin)
    with pytest.raises(IntegrityError, match="not what its name says"):
        store(tmp_path).find(REQUEST)


def test_a_body_that_is_gone_is_an_error_and_not_a_new_question(tmp_path: Path) -> None:
    sha256 = store(tmp_path).put(REQUEST, b"x").sha256
    (tmp_path / "objects" / sha256[:2] / sha256).unlink()
    with pytest.raises(IntegrityError, match="no object"):
        store(tmp_path).find(REQUEST)


def test_offline_a_question_that_was_never_answered_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="offline"):
        store(tmp_path, offline=True).find(REQUEST)
    store(tmp_path).put(REQUEST, b"x")
    assert store(tmp_path, offline=True).find(REQUEST) is not None


def test_no_secret_reaches_the_disk(tmp_path: Path) -> None:
    canary = "CANARY7f3"
    request = {
        "method": "GET",
        "url": f"https://user:{canary}@vendor.example/a?apiKey={canary}&to=2020&token={canary}&key={canary}",
        "api_key": canary,
        "token": canary,
    }
    store(tmp_path).put(request, b"x", headers={"Set-Cookie": canary, "Authorization": canary, "X-Api-Key": canary, "ETag": "1"})
    assert all(canary not in path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    found = store(tmp_path).find(request)
    assert found is not None
    assert found.headers == {"ETag": "1"}


def test_redaction_keeps_what_tells_requests_apart() -> None:
    assert redact({"bucket": "b", "key": "us_stocks/2020.csv.gz"}) == {"bucket": "b", "key": "us_stocks/2020.csv.gz"}
    assert redact_url("https://h/a?x=1&y=%20") == "https://h/a?x=1&y=%20"
    assert redact_url("https://h/a?x=1&apikey=S&y=2") == "https://h/a?x=1&apikey=REDACTED&y=2"
    assert redact_url("no url at all: token=abc") == "no url at all: token=abc"


@settings(deadline=None, max_examples=25)
@given(answers=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.binary(max_size=3)), max_size=12))
def test_what_is_found_is_always_the_first_answer_of_its_date(
    tmp_path_factory: pytest.TempPathFactory, answers: list[tuple[int, int, bytes]]
) -> None:
    root = tmp_path_factory.mktemp("landing")
    first: dict[tuple[int, int], bytes] = {}
    for page, day, body in answers:
        used = store(root, date(2026, 1, 5 + day)).put(REQUEST | {"page": str(page)}, body)
        assert used.body == first.setdefault((page, day), body)
    for (page, day), body in first.items():
        found = store(root, date(2026, 1, 5 + day)).find(REQUEST | {"page": str(page)})
        assert found is not None
        assert found.body == body


def _race(root: Path, name: int, results: multiprocessing.Queue[tuple[int, list[str]]]) -> None:
    mine = store(root)
    results.put((name, [mine.put(REQUEST | {"page": str(page)}, f"{name} {page}".encode()).sha256 for page in range(20)]))


def test_processes_that_share_a_store_agree_on_every_answer(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[tuple[int, list[str]]] = context.Queue()
    workers = [context.Process(target=_race, args=(tmp_path, name, results)) for name in range(4)]
    for worker in workers:
        worker.start()
    seen = dict(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    assert len({tuple(used) for used in seen.values()}) == 1
    records = [json.loads(path.read_bytes()) for path in (tmp_path / "requests").rglob("????-??-??.json")]
    assert sorted(record["sha256"] for record in records) == sorted(seen[0])
    # Every answer that lost is kept beside the one that stands.
    assert len(list((tmp_path / "requests").rglob("*.json"))) == 4 * 20


def test_a_local_file_that_changed_is_a_recorded_restatement_even_under_one_date(tmp_path: Path) -> None:
    def read(day: date, body: bytes) -> bytes:
        named = {"kind": "file", "path": "own.csv", "sha256": digest_bytes(body)}
        return store(tmp_path, day).put(named, body).body

    assert [read(MONDAY, b"old"), read(MONDAY, b"old"), read(MONDAY, b"new")] == [b"old", b"old", b"new"]
    (restated,) = store(tmp_path).restatements()
    assert (restated.old_sha256, restated.new_sha256) == (digest_bytes(b"old"), digest_bytes(b"new"))
    assert read(MONDAY, b"old") == b"old"
    assert read(TUESDAY, b"newer") == b"newer"
    assert len(list(store(tmp_path).restatements())) == 2


def shard(end: str = "2024-01-31", as_of: str = "2024-02-01") -> Shard:
    return Shard("one", "equity_ohlcv", "AAA", ("AAA",), date(2024, 1, 2), date.fromisoformat(end), {"as_of": as_of, "interval": "day"})


def test_a_shard_is_found_as_it_was_asked_for_at_earlier_dates(tmp_path: Path) -> None:
    days = [date(2024, 2, 1), date(2024, 3, 1), date(2024, 4, 1)]
    for day in reversed(days):
        LandingStore(tmp_path, day).note(shard(as_of=str(day)))
    now = shard("2024-03-28", "2024-04-01")
    found = LandingStore(tmp_path, days[2]).earlier(now, ())
    assert [(old.as_of, then) for old, then in found] == [(str(day), shard(as_of=str(day))) for day in days[:2]]
    assert LandingStore(tmp_path, days[0]).earlier(now, ()) == ()
    other = replace(now, params={**now.params, "interval": "minute"})
    assert LandingStore(tmp_path, days[2]).earlier(other, ()) == ()


def test_an_earlier_store_gives_what_was_received_and_takes_nothing(tmp_path: Path) -> None:
    request = {"kind": "http", "url": "https://one.example/AAA"}
    LandingStore(tmp_path, date(2024, 2, 1)).put(request, b"first")
    payload = LandingStore(tmp_path, date(2024, 3, 1)).put(request, b"second")
    before = sorted(tmp_path.rglob("*"))
    ((old, then),) = LandingStore(tmp_path, date(2024, 3, 1)).earlier(shard(), (payload,))
    assert (old.as_of, then) == ("2024-02-01", shard(as_of="2024-02-01"))
    found = old.find(request)
    assert found is not None
    assert found.body == old.put(request, b"first").body == b"first"
    for refused in (request, {"kind": "file", "path": "own.csv"}, {"kind": "synthetic", "seed": "1"}):
        with pytest.raises(MissingDataError, match="as of 2024-02-01"):
            old.put(refused, b"today's")
    assert sorted(tmp_path.rglob("*")) == before
