"""The sections on what was judged: verdict, performance, regimes, robustness, seeds, training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from quanto.runtime.reporting import figures
from quanto.runtime.reporting.figures import CANDIDATE, Picture, pretty
from quanto.runtime.reporting.files import Files
from quanto.runtime.reporting.parts import MISSING, OPEN, Card, Cell, Section, Table, mapping, metric, number, status

TIERS = ("research", "candidate", "production")
SLICES = ("all", "high_volatility", "normal_volatility", "trend_up", "trend_down")
TURNOVER_SESSIONS = 21
BOOK_COLUMNS = {
    "annual_return": "return a year",
    "annual_volatility": "volatility",
    "sharpe": "Sharpe",
    "max_drawdown": "worst drawdown",
    "cvar": "CVaR 95 % a session",
    "turnover_annual": "turnover a year",
    "gross_mean": "mean exposure",
    "alpha": "alpha a year",
}
SLICE_COLUMNS = {
    "annual_return": "return a year",
    "annual_volatility": "volatility",
    "sharpe": "Sharpe",
    "drawdown_within_episodes": "drawdown in an episode",
    "exposure_mean": "mean exposure",
    "turnover_annual": "turnover a year",
    "alpha": "alpha a year",
}
STRESS_COLUMNS = {
    "annual_return": "return a year",
    "sharpe": "Sharpe",
    "max_drawdown": "worst drawdown",
    "alpha": "alpha a year",
    "alpha_t_statistic": "t of alpha",
    "exposure_mean": "mean exposure",
}
SPREAD = {
    "highest": "highest alpha",
    "interquartile_mean": "interquartile mean of the alphas",
    "lowest": "lowest alpha",
    "seeds": "seeds",
    "share_positive": "share of seeds with a positive alpha",
}
SPREAD_FORMS = {"seeds": "sessions", "share_positive": "share_positive"}
LEGS = ("overnight", "intraday", "dividend", "cash", "cost")


def verdict(files: Files) -> Section:
    """Return the verdict per tier, the facts that bear on it, and every gate."""
    report, record = files.json["qualification"], files.json["record"]
    noise = {tier: share for tier, share in mapping(report.get("noise_gets_this_tier")).items() if share is not None}
    rates = "; ".join(f"pure noise gets tier {tier} {share:.1%} of the time" for tier, share in noise.items())
    trials = mapping(report.get("trials")).get("count", "unknown")
    sentences = (
        f"{rates}." if noise else "How often pure noise would get these tiers is not calibrated for exactly these gates.",
        f"Trials that looked at this holdout: {trials}. A gate without evidence is not passed: missing, NaN and vacuous count against.",
    )
    beside = [
        (Cell(pretty(str(row.get("book"))), row.get("book")), number(row.get("t_statistic"), "+.2f"), Cell(str(row.get("sentence", ""))))
        for row in report.get("beside", [])
    ]
    return Section(
        "verdict",
        "Verdict",
        sentences,
        (
            Table(("gate", "tier", "status", "value", "threshold", "sample", "reason"), tuple(_gates(report)), "Gates", prose=True),
            Table(("book", "t of alpha", "what it says"), tuple(beside), "Would something simpler have done?", prose=True),
        ),
        cards=(*_tiers(report, record), *_headline(files)),
        warnings=tuple(_warnings(files)),
    )


def _tiers(report: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[Card]:
    verdicts = mapping(report.get("verdicts"))
    eligible = record.get("eligible_tiers", [])
    blocks = "; ".join(record.get("blocked_by", []))
    for tier in [*(name for name in TIERS if name in verdicts), *(name for name in verdicts if name not in TIERS)]:
        item = mapping(verdicts[tier])
        shown = status(item.get("decision"))
        reasons = item.get("reasons", [])
        names = ", ".join(pretty(str(reason).split(":")[0]) for reason in reasons) if isinstance(reasons, list) else ""
        detail = f"not passed: {names}" if names else "every gate of the tier is passed"
        if not names and tier not in eligible:
            yield Card(f"tier {tier}", "not eligible", f"{detail}, but {blocks or 'a lower tier is not eligible'}", shown.raw, OPEN)
        else:
            yield Card(f"tier {tier}", shown.text, detail, shown.raw, shown.mood)
    if not verdicts:
        yield Card("verdict", "not judged", "the revision holds no qualification report; run `dvc repro`", None, OPEN)


def _headline(files: Files) -> Iterator[Card]:
    numbers, evaluation = files.json["metrics"], files.json["evaluation"]
    baseline = pretty(str(evaluation.get("baseline", "baseline")))
    for key, beside in (
        ("annual_return", "baseline_annual_return"),
        ("sharpe", "baseline_sharpe"),
        ("max_drawdown", "baseline_max_drawdown"),
    ):
        cell = metric(key, numbers.get(key))
        yield Card(BOOK_COLUMNS[key], cell.text, f"{baseline}: {metric(key, numbers.get(beside)).text}", cell.raw)
    interval = _intervals(evaluation).get("alpha", {})
    cell = metric("alpha", numbers.get("alpha"))
    bounds = f"95 % from {metric('alpha', interval.get('low')).text} to {metric('alpha', interval.get('high')).text}" if interval else ""
    yield Card("alpha a year", cell.text, bounds, cell.raw)


def _warnings(files: Files) -> Iterator[str]:
    if files.json["qualification"].get("selection") == "hindsight" or files.json["evaluation"].get("selection") == "hindsight":
        yield (
            "The universe was chosen with hindsight: these names survived. Nothing here supports a claim on absolute return, "
            "and the production tier is refused."
        )
    if files.json["leak_proof"].get("passed") is not True:
        yield "The leak proof of the features does not hold or is missing: no number below is evidence."
    if files.json["canonical"].get("passed") is not True:
        yield "The canonical data did not pass their own checks, or their report is missing; see data quality."


def _gates(report: Mapping[str, Any]) -> Iterator[tuple[Cell, ...]]:
    for gate in report.get("gates", []):
        yield (
            Cell(pretty(gate["name"]), gate["name"]),
            Cell(str(gate.get("tier", ""))),
            status(gate.get("status")),
            number(gate.get("value")),
            number(gate.get("threshold")),
            number(gate.get("sample"), ",.0f"),
            Cell(str(gate.get("reason", "")), gate.get("question")),
        )


def performance(files: Files) -> Section:
    """Return every book's figures, the curves against the baselines, what was held, and where the money came from."""
    baseline = str(files.json["evaluation"].get("baseline", ""))
    names = (CANDIDATE, baseline, f"matched_{baseline}", "volatility_target_v1", "yardstick", "buy_and_hold_v1", "cash_v1")
    bands = episodes(files.json["slices"].get("labels", {}))
    books = [row for row in files.json["metrics"].get("books", []) if "member_" not in row["book"]]
    rows = tuple((Cell(pretty(row["book"]), row["book"]), *(metric(key, row.get(key)) for key in BOOK_COLUMNS)) for row in books)
    few = names[:3]
    return Section(
        "performance",
        "Performance, out of sample and net of costs",
        (
            "Shaded: sessions labelled as of high volatility before they began. Matched: the baseline at the candidate's mean exposure.",
            "Yardstick: the same network trained without reinforcement learning, by the exact gradient through the known train prices.",
        ),
        (Table(("book", *BOOK_COLUMNS.values()), rows), *_attribution(files)),
        (
            figures.lines("Equity", "Growth of one dollar (log scale).", files.tables["equity"], names, bands, ".2f", log=True),
            figures.lines("Drawdown", "Fall from the running peak.", files.tables["drawdown"], few, bands, ".0%"),
            figures.lines("Exposure", "Gross exposure at the close.", files.tables["exposure"], (CANDIDATE, baseline), bands, ".0%"),
            figures.lines("Turnover", f"Sum over {TURNOVER_SESSIONS} sessions, one-way.", _turnover(files), few, bands, ".0%"),
            *_holdings(files),
        ),
    )


def _turnover(files: Files) -> pd.DataFrame:
    table = files.tables["returns"]
    wide = table.assign(session=pd.to_datetime(table["session"])).pivot_table(index="session", columns="book", values="turnover")
    return wide.rolling(TURNOVER_SESSIONS).sum()


def _holdings(files: Files) -> Iterator[Picture]:
    table = files.tables["weights"]
    own = table[table["book"] == CANDIDATE]
    if len(own):
        wide = own.assign(session=pd.to_datetime(own["session"])).pivot_table(index="session", columns="symbol", values="weight")
        yield figures.areas("Holdings", "Weights of the candidate at the close; what is left is cash.", wide)


def _attribution(files: Files) -> Iterator[Table]:
    found = files.json["evaluation"].get("attribution", {})
    head = (*LEGS, "sum")
    rows = []
    for name, legs in [*found.get("symbols", {}).items(), ("total", found.get("total", {}))]:
        rows.append((Cell(name), *(number(legs.get(leg), ",.0f") for leg in LEGS), number(sum(legs.get(leg, 0.0) for leg in LEGS), ",.0f")))
    years = [
        (Cell(str(year)), number(item.get("period_return"), ".1%"), *(number(item.get("legs", {}).get(leg), ",.0f") for leg in LEGS))
        for year, item in found.get("years", {}).items()
    ]
    if found:
        yield Table(("name", *head), tuple(rows), "Where the money came from, USD", folded=True)
        yield Table(("year", "return", *LEGS), tuple(years), "By year, USD", folded=True)


def regimes(files: Files) -> Section:
    """Return the slices, candidate beside baseline and exposure-matched baseline."""
    slices = files.json["slices"].get("slices", {})
    baseline = str(files.json["evaluation"].get("baseline", ""))
    shown = (CANDIDATE, baseline, f"matched_{baseline}")
    names = [item for item in SLICES if item in slices]
    rows = [
        (
            Cell(pretty(name), name),
            number(slices[name].get("sessions"), ",.0f"),
            number(len(slices[name].get("episodes", [])), ",.0f"),
            Cell(pretty(book), book),
            *(metric(key, slices[name]["books"][book].get(key)) for key in SLICE_COLUMNS),
        )
        for name in names
        for book in shown
        if book in slices[name].get("books", {})
    ]
    values = {name: {book: slices[name].get("books", {}).get(book, {}) for book in shown} for name in names}
    return Section(
        "regimes",
        "Regimes",
        ("Labels are causal: known before the session they label.",),
        (Table(("slice", "sessions", "episodes", "book", *SLICE_COLUMNS.values()), tuple(rows)),),
        (
            figures.regime_bars(values, "annual_volatility", "Volatility by regime", "Annual volatility in each slice."),
            figures.regime_bars(values, "drawdown_within_episodes", "Drawdown by regime", "Deepest fall inside one episode of the slice."),
        ),
    )


def robustness(files: Files) -> Section:
    """Return stress runs, costs, and the bootstrap intervals."""
    evaluation = files.json["evaluation"]
    costs = evaluation.get("costs", {})
    stress = dict(_leaves(evaluation.get("stress", {})))
    sliced = {label: run for label, run in stress.items() if "drawdown_within_episodes" in run}
    whole = {label: run for label, run in stress.items() if label not in sliced}
    cost_runs = {f"{run.get('factor'):g} x": run for run in costs.get("runs", [])}
    intervals = [
        (Cell(pretty(name), name), *(metric(name, item.get(key)) for key in ("estimate", "low", "high")))
        for name, item in _intervals(evaluation).items()
    ]
    break_even = number(costs.get("break_even_bps"), ".2f").text
    baseline = pretty(str(evaluation.get("baseline", "the baseline")))
    return Section(
        "robustness",
        "Robustness: stress on the evaluation, costs, intervals",
        (
            f"Break-even cost against {baseline}: {break_even} bps a side, charged {number(costs.get('linear_cost_bps'), '.2f').text}."
            if break_even != MISSING
            else f"Within the costs tried, none makes the candidate break even with {baseline}.",
        ),
        (
            _stress_table("stress", whole, STRESS_COLUMNS, "Stress on the evaluation"),
            _stress_table("labels", sliced, SLICE_COLUMNS, "High volatility, with its labels in place and shifted by a session"),
            _stress_table("costs", cost_runs, STRESS_COLUMNS, "Costs"),
            *_walk_forward(evaluation),
            Table(
                ("metric", "estimate", "low", "high"),
                tuple(intervals),
                "Bootstrap over blocks of sessions, 95 %; differences: minus baseline",
            ),
        ),
    )


def seeds(files: Files) -> Section:
    """Return how far the seeds agree."""
    found = files.json["evaluation"].get("seeds", {})
    spread = found.get("spread", {})
    alphas = {name: value for name, value in found.get("alpha", {}).items() if value is not None}
    rows = tuple(
        (Cell(SPREAD.get(name, pretty(name)), name), metric(SPREAD_FORMS.get(name, "alpha"), value)) for name, value in spread.items()
    )
    interval = mapping(found.get("interquartile_mean_interval"))
    if interval:
        low, high = (metric("alpha", interval[side]).text for side in ("low", "high"))
        label = f"{interval['level']:.0%} interval of the interquartile mean, by drawing days"
        rows = (*rows, (Cell(label, "interquartile_mean_interval"), Cell(f"{low} to {high}", str(interval))))
    return Section(
        "seeds",
        "Seeds",
        ("The ensemble of seeds is what is judged, promoted and traded; each seed alone shows how much luck of initialisation there is.",),
        (Table(("spread", "value"), rows),),
        (figures.seed_bars(alphas),) if alphas else (),
    )


def training(files: Files) -> Section:
    """Return the training curves and what was kept of each seed."""
    table = files.tables["curves"]
    summary = files.json["training"]
    rows = [
        (
            Cell(f"seed {item.get('member')}"),
            number(item.get("steps"), ",.0f"),
            number(item.get("chosen_step"), ",.0f"),
            number(item.get("validation_growth"), ".3%"),
        )
        for item in summary.get("members", [])
    ]
    return Section(
        "training",
        "Training",
        (f"Algorithm: {summary.get('algorithm', 'unknown')}. One line per seed.",),
        (Table(("member", "steps", "step kept", "growth a session in validation"), tuple(rows)).without_empty_columns(),),
        tuple(figures.curves(table)),
    )


def episodes(labels: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return first and last session of every contiguous run of high volatility."""
    sessions, high = labels.get("sessions", []), np.asarray(labels.get("high_volatility", []), dtype=float)
    runs: list[tuple[str, str]] = []
    start: int | None = None
    for index, flag in enumerate([*(high == 1), False]):
        if flag and start is None:
            start = index
        elif not flag and start is not None:
            runs.append((sessions[start], sessions[index - 1]))
            start = None
    return runs


def _intervals(evaluation: Mapping[str, Any]) -> Mapping[str, Any]:
    by_baseline = evaluation.get("intervals", {})
    first: Mapping[str, Any] = by_baseline.get(evaluation.get("baseline")) or next(iter(by_baseline.values()), {})
    found: Mapping[str, Any] = first.get("intervals", {})
    return found


def _walk_forward(evaluation: Mapping[str, Any]) -> Iterator[Table]:
    """Yield what training again in every fold gives, where the experiment asks for it."""
    found = evaluation.get("walk_forward") or {}
    if found:
        books = {pretty(name): numbers for name, numbers in found.get("books", {}).items()}
        yield _stress_table("book", books, BOOK_COLUMNS, "Walk-forward: all folds joined, each trained on its own past")
        folds = {f"{fold.get('test_start')} to {fold.get('test_end')}": fold for fold in found.get("folds", [])}
        yield _stress_table("test segment", folds, STRESS_COLUMNS, "Walk-forward: fold by fold")


def _stress_table(name: str, runs: Mapping[str, Mapping[str, Any]], columns: Mapping[str, str], title: str) -> Table:
    keys = [key for key in columns if any(run.get(key) is not None for run in runs.values())]
    rows = tuple((Cell(label), *(metric(key, run.get(key)) for key in keys)) for label, run in runs.items())
    return Table((name, *(columns[key] for key in keys)), rows, title)


def _leaves(value: Mapping[str, Any], label: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the innermost mappings, those that hold numbers, with their path as a label."""
    inner = {key: item for key, item in value.items() if isinstance(item, Mapping)}
    if not inner:
        yield label, value
    for key, item in inner.items():
        yield from _leaves(item, f"{label}: {pretty(key)}" if label else pretty(key))
