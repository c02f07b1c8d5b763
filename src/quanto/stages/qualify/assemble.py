"""From the files of eval, features, canonical and the ledger to the evidence that the gates see.

What is not there becomes None, an empty array or a NaN, never a default that passes: the gates fail on it and say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from quanto.core.errors import ConfigError
from quanto.core.registry import unknown_name
from quanto.stages.qualify.config import QualifyConfig
from quanto.stages.qualify.evidence import Book, Evidence, Facts, Labels, SealedBlock
from quanto.stages.qualify.ledger import trials_of

FloatArray = npt.NDArray[np.float64]

CHAMPION = "champion"
CANDIDATE = "candidate"
MATCHED = "matched_"
MEMBER = "member_"
SABOTEUR = "saboteur_"
DOUBLED = "_double_costs"


@dataclass(frozen=True)
class Files:
    """The parsed inputs; a file that is missing or unreadable is None (the snapshot: empty bytes).

    Attributes
    ----------
    returns
        The table reports/evaluation/returns.parquet.
    champion
        reports/champion/trial.json: the record of the policy promoted before.
    """

    evaluation: object
    slices: object
    trial: object
    returns: pa.Table
    leak_proof: object
    canonical_report: object
    snapshot: bytes
    champion: object = None


def assemble(files: Files, config: QualifyConfig, sealed: object = None, fresh_sessions: int | None = None) -> Evidence:
    """Return the evidence of one evaluation.

    Parameters
    ----------
    sealed
        The opening record of the sealed block (`eval.sealed.open_sealed_block`); a production request has it, the graph not.
    fresh_sessions
        Shadow or paper sessions that did not exist in the candidate's lineage; known to a production request alone.

    Raises
    ------
    ConfigError
        If `qualify.baseline` names no book that eval ran, or `champion` where none was committed.
    """
    books = _books(files.returns)
    sessions = len(books[CANDIDATE].returns) if CANDIDATE in books else 0
    own = books.get(CANDIDATE, _blank(sessions))
    trial = files.trial if isinstance(files.trial, Mapping) else {}
    champion = None if files.champion is None else _champion(files.champion, trial, sessions)
    cash = _numbers(trial.get("cash_returns"), sessions)
    if config.baseline == CHAMPION:
        if champion is None:
            raise ConfigError(
                "qualify.baseline is champion, and reports/champion/trial.json is not there; promote one first, or name a baseline"
            )
        baseline, matched = champion.book, champion.matched(own, cash)
        doubled_baseline = champion.book.returns - champion.costs
    else:
        if config.baseline not in books or f"{MATCHED}{config.baseline}" not in books:
            known = [name.removeprefix(MATCHED) for name in books if name.startswith(MATCHED)]
            raise ConfigError(f"qualify.baseline: {unknown_name('baseline', config.baseline, [*known, CHAMPION])}")
        baseline, matched = books[config.baseline], books[f"{MATCHED}{config.baseline}"]
        twin = books.get(f"{config.baseline}{DOUBLED}")
        # Eval re-ran its own baseline at twice the costs; for another one the second charge is taken off to first order.
        doubled_baseline = _dearer(files.returns, config.baseline) if twin is None else twin.returns
    dear = books.get(f"{CANDIDATE}{DOUBLED}")
    members = [books[name].returns for name in sorted(books) if name.startswith(MEMBER)]
    return Evidence(
        candidate=own,
        baseline=baseline,
        matched=matched,
        cash=cash,
        labels=_labels(files.slices, sessions),
        members=np.array(members) if members else np.empty((0, sessions)),
        doubled=None if dear is None else np.array([dear.returns, doubled_baseline]),
        trials=trials_of(files.snapshot, trial, config.prior_trials),
        facts=replace(_facts(files, config, champion), sealed=sealed_block(sealed, files.trial), fresh_sessions=fresh_sessions),
        champion=None if champion is None else champion.book,
        saboteurs=tuple(books[name] for name in sorted(books) if name.startswith(SABOTEUR)),
        seed=config.seed,
    )


@dataclass(frozen=True)
class _Champion:
    book: Book
    costs: FloatArray
    conditions: Mapping[str, str]

    def matched(self, other: Book, cash: FloatArray) -> Book:
        """Return the champion scaled to another book's mean gross exposure, the rest in cash."""
        own, wanted = float(self.book.exposure.mean()), float(other.exposure.mean())
        share = wanted / own if own > 0 else np.nan
        return Book(cash + share * (self.book.returns - cash), share * self.book.exposure, share * self.book.turnover)


def _champion(record: object, trial: Mapping[str, object], sessions: int) -> _Champion:
    """Return the champion's record; NaN where it does not cover exactly the candidate's sessions, which the gates refuse."""
    value = record if isinstance(record, Mapping) else {}
    if value.get("sessions") != trial.get("sessions"):
        return _Champion(_blank(sessions), np.full(sessions, np.nan), {"sessions": "not the candidate's"})
    book = Book(*(_numbers(value.get(name), sessions) for name in ("returns", "exposure", "turnover")))
    return _Champion(book, _numbers(value.get("costs"), sessions), _texts(value.get("conditions")))


def _books(table: pa.Table) -> dict[str, Book]:
    names = pc.unique(table["book"]).to_pylist()
    parts = {name: table.filter(pc.equal(table["book"], name)).sort_by("session") for name in names}
    return {name: Book(*(part[column].to_numpy() for column in ("return", "exposure", "turnover"))) for name, part in parts.items()}


def _dearer(table: pa.Table, name: str) -> FloatArray:
    rows = table.filter(pc.equal(table["book"], name)).sort_by("session")
    returns, nav, cost = (rows[column].to_numpy() for column in ("return", "nav", "cost"))
    return np.asarray(returns - cost * (1 + returns) / nav)


def _labels(slices: object, sessions: int) -> Labels:
    found = slices.get("labels") if isinstance(slices, Mapping) else None
    values = found if isinstance(found, Mapping) else {}
    high, known = values.get("high_volatility"), values.get("known")
    if not (isinstance(high, list) and isinstance(known, list) and len(high) == len(known) == sessions):
        # No label is known: the regime gates find too few sessions.
        return Labels(np.zeros(sessions, dtype=np.bool_), np.zeros(sessions, dtype=np.bool_))
    return Labels(np.array([item is True for item in high]), np.array([item is True for item in known]))


def _facts(files: Files, config: QualifyConfig, champion: _Champion | None) -> Facts:
    evaluation = files.evaluation if isinstance(files.evaluation, Mapping) else {}
    checks = evaluation.get("checks")
    counted = checks if isinstance(checks, Mapping) else {}
    leak_sessions, leak_mismatches = leak_facts(files.leak_proof)
    return Facts(
        decisions=_count(counted.get("decisions")),
        violations=_count(counted.get("violations")),
        cash_breaches=_count(counted.get("cash_breaches")),
        trades=_count(counted.get("trades")),
        conditions=_conditions(evaluation.get("conditions"), config.baseline, champion),
        leak_sessions=leak_sessions,
        leak_mismatches=leak_mismatches,
        data_faults=data_faults(files.canonical_report),
        # Both must say so: what eval ran on, and what is asked here.
        selection=config.selection if evaluation.get("selection") == config.selection else None,
    )


def _conditions(found: object, baseline: str, champion: _Champion | None) -> dict[str, Mapping[str, str]]:
    values = found if isinstance(found, Mapping) else {}
    names = {"candidate": CANDIDATE, "baseline": baseline, "matched": f"{MATCHED}{baseline}"}
    out: dict[str, Mapping[str, str]] = {role: _texts(values[name]) for role, name in names.items() if name in values}
    if champion is not None:
        out["champion"] = champion.conditions
        if baseline == CHAMPION:
            out |= {"baseline": champion.conditions, "matched": champion.conditions}
    return out


def leak_facts(proof: object) -> tuple[int | None, int | None]:
    """Return the sessions that the leak proof compared and its mismatches; a proof that did not pass has at least one."""
    if not isinstance(proof, Mapping):
        return None, None
    sessions, mismatches = _count(proof.get("sessions")), _count(proof.get("mismatches"))
    if mismatches is not None and proof.get("passed") is not True:
        mismatches = max(mismatches, 1)
    return sessions, mismatches


def data_faults(report: object) -> tuple[str, ...] | None:
    """Return what the canonical report says against the data: a broken conservation law. None where it says nothing.

    Rows in must be selected, superseded, quarantined or outside the dates; a row that is none of them was lost.
    """
    domains = report.get("domains") if isinstance(report, Mapping) else None
    counted = {
        f"{vendor}/{domain}": counts
        for domain, entry in (domains.items() if isinstance(domains, Mapping) else ())
        for vendor, counts in (entry["vendors"].items() if isinstance(entry, Mapping) and isinstance(entry.get("vendors"), Mapping) else ())
    }
    if not counted:
        return None
    return tuple(fault for where, counts in sorted(counted.items()) if (fault := _lost_rows(where, counts)) is not None)


def sealed_block(record: object, trial: object) -> SealedBlock | None:
    """Return what an opening record says of this very policy; None where there is none, or its numbers are not whole."""
    values = record if isinstance(record, Mapping) else {}
    own = trial.get("policy") if isinstance(trial, Mapping) else None
    sessions, violations = _count(values.get("sessions")), _count(values.get("violations"))
    drawdown, p_inferior = values.get("drawdown"), values.get("p_inferior")
    if values.get("policy") != own or sessions is None or violations is None:
        return None
    if not isinstance(drawdown, float | int) or not isinstance(p_inferior, float | int):
        return None
    return SealedBlock(sessions, violations, float(drawdown), float(p_inferior))


def _lost_rows(where: str, counts: object) -> str | None:
    values = counts if isinstance(counts, Mapping) else {}
    numbers = [_count(values.get(name)) for name in ("rows", "outside_dates", "selected", "superseded", "quarantined")]
    whole = [number for number in numbers if number is not None]
    if len(whole) != len(numbers):
        return f"{where}: the conservation law is incomplete"
    rows, accounted = whole[0], sum(whole[1:])
    return None if rows == accounted else f"{where}: {rows} rows in, {accounted} accounted for"


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _texts(value: object) -> dict[str, str]:
    return {str(key): str(item) for key, item in value.items()} if isinstance(value, Mapping) else {}


def _blank(sessions: int) -> Book:
    nothing = np.full(sessions, np.nan)
    return Book(nothing, nothing, nothing)


def _numbers(values: object, sessions: int) -> FloatArray:
    """Return a list of numbers as an array; NaN throughout where it is none of the right length."""
    if not isinstance(values, list) or len(values) != sessions or not all(isinstance(value, int | float) for value in values):
        return np.full(sessions, np.nan)
    return np.array(values, dtype=np.float64)
