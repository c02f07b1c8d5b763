"""The stage's units of work: each reads raw slices, calls the pure functions, writes one partition. Order does not matter."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quanto.core.config import load_section
from quanto.core.errors import MissingDataError
from quanto.core.store import write_table
from quanto.market.calendar import DateArray
from quanto.market.corporate_actions import SplitHistory
from quanto.market.schema import CANONICAL, DATE_COLUMN, KEYS
from quanto.stages.canonical.actions import Action, ActionsResult, reconcile_actions
from quanto.stages.canonical.axes import Partition, plan_partitions
from quanto.stages.canonical.bars import BasisHistories
from quanto.stages.canonical.build import BarsPart, Context, build_bars, partition_symbols
from quanto.stages.canonical.choice import Verdicts
from quanto.stages.canonical.config import CanonicalConfig, Identity, Membership
from quanto.stages.canonical.disagreement import ActionDays, action_days
from quanto.stages.canonical.identity import Derived, derived_rules, rules_of, tickers_of, turns_of
from quanto.stages.canonical.implied import COLUMNS, Refusal, dividends_in_total_basis, implied_events
from quanto.stages.canonical.memo import code_digest, memo_folder, partition_key, recall, remember
from quanto.stages.canonical.raw import Outline, RawFile, distinct, has_values, outline, read_all, read_columns, read_slice
from quanto.stages.canonical.rows import RowsResult, reconcile_rows
from quanto.stages.canonical.splits import misbased_spans
from quanto.stages.canonical.verdicts import assumed_verdicts, judge

# What tells versions of one key apart, in order: when they were known, and where they came from.
_VERSION = ("known_on", "vendor", "payload", "payload_row")


@dataclass(frozen=True)
class BarsTask:
    """One partition of bars: where its raw rows are, what it must know, and where its canonical rows go."""

    partition: Partition
    files: tuple[RawFile, ...]
    verdicts: Verdicts
    context: Context
    folder: Path
    memo: Path
    code: str

    @property
    def key(self) -> str:
        """The partition's name."""
        return self.partition.key


def build_partition(task: BarsTask) -> BarsPart:
    """Build and write one partition of bars, or link it from the memo; return all but its rows."""
    first, last = task.partition.context()
    tables = [read_slice(file, first, last) for file in task.files]
    symbols = partition_symbols(tables, task.context)
    context = task.context.within(task.partition, tables, symbols)
    verdicts = task.verdicts.within(symbols, task.partition.year)
    target = task.folder / f"year={task.partition.year}" / task.partition.file
    # Built again under other verdicts, a partition may lose its last row.
    target.unlink(missing_ok=True)
    key = partition_key(task.partition, tables, symbols, verdicts, context, task.code)
    known = recall(task.memo, key, target)
    if known is not None:
        return known
    part = build_bars(task.partition, tables, symbols, verdicts, context)
    remember(task.memo, key, part, target)
    # An empty slice would still carry its buffers to the main process.
    return replace(part, table=CANONICAL["equity_ohlcv"].empty_table())


def build_all_bars(
    files: Sequence[RawFile], outlines: Sequence[Outline], context: Context, folder: Path, executor: Executor
) -> list[BarsPart]:
    """Build all partitions of bars; return what they counted, in order of time.

    A partition is built under the assumption that every vendor agrees with the others; those for which the whole
    history says otherwise are built again. What is measured does not depend on the assumption, so once is enough.
    Before that, rows of a vendor that missed a split, or applied one twice, are barred: the step shows in one
    partition, the rows lie in all before it.
    """
    config = context.config
    partitions = plan_partitions(rows_in_window(outlines, config.start_date, config.end_date), config.partition_rows)
    partitions = tuple(clip(partition, config.start_date, config.end_date) for partition in partitions)
    rules = [rules_of(config.sources.identity, file.vendor) for file in files]
    verdicts = assumed_verdicts([_entities(item.symbols, own) for item, own in zip(outlines, rules, strict=True)])
    memo, code = memo_folder(), code_digest()
    tasks = [BarsTask(partition, tuple(files), verdicts, context, folder, memo, code) for partition in partitions]
    parts = list(executor.map(build_partition, tasks))
    tasks = _without_misbased(tasks, parts, executor)
    final = judge([part.measured for part in parts], config.fallback)
    again = [i for i, part in enumerate(parts) if not _concerns(part, verdicts).same(_concerns(part, final))]
    for index, part in zip(again, executor.map(build_partition, [replace(tasks[i], verdicts=final) for i in again]), strict=True):
        parts[index] = part
    return parts


def _without_misbased(tasks: list[BarsTask], parts: list[BarsPart], executor: Executor) -> list[BarsTask]:
    """Build again, in place, the partitions with rows on another basis, those barred; return the tasks that know it."""
    spans = misbased_spans(step for part in parts for step in part.steps)
    if not spans:
        return tasks
    told = [replace(task, context=replace(task.context, misbased=spans)) for task in tasks]
    hit = [i for i, part in enumerate(parts) if told[i].context.within(part.partition, (), part.symbols).misbased]
    for index, part in zip(hit, executor.map(build_partition, [told[i] for i in hit]), strict=True):
        parts[index] = part
    return told


def rows_in_window(outlines: Sequence[Outline], start: date | None, end: date | None) -> dict[int, int]:
    """Return raw rows per day (days since 1970) over all vendors, within the dates."""
    low = np.datetime64(start, "D").astype(np.int64) if start else -(1 << 40)
    high = np.datetime64(end, "D").astype(np.int64) if end else 1 << 40
    counts: dict[int, int] = {}
    for item in outlines:
        for day, rows in zip(item.days.tolist(), item.rows.tolist(), strict=True):
            if low <= day <= high:
                counts[day] = counts.get(day, 0) + rows
    return counts


def clip(partition: Partition, start: date | None, end: date | None) -> Partition:
    """Return a partition cut to the dates that are built."""
    return replace(partition, first=max(partition.first, start or date.min), last=min(partition.last, end or date.max))


def derive_identity(
    actions: Sequence[RawFile], bars: Sequence[RawFile], config: CanonicalConfig, executor: Executor
) -> tuple[CanonicalConfig, list[Derived]]:
    """Return the configuration with the identity rules that the vendors' actions imply after its own, and those rules."""
    order = config.sources.corporate_actions.priority
    turns = turns_of(
        {file.vendor: read_all(file) for file in sorted(actions, key=lambda file: order.index(file.vendor))}, config.match_sessions
    )
    if not turns:
        return config, []
    days = dict(executor.map(ticker_days, bars, [tickers_of(turns)] * len(bars)))
    without_bars = [file.vendor for file in actions if file.vendor not in days]
    derived = derived_rules(turns, days, config.match_sessions, without_bars)
    rules = (*config.sources.identity, *(item.rule for item in derived))
    return config.model_copy(update={"sources": config.sources.model_copy(update={"identity": rules})}), derived


def ticker_days(file: RawFile, tickers: tuple[str, ...]) -> tuple[str, dict[str, DateArray]]:
    """Return a vendor's days of some tickers, ascending."""
    table = read_columns(file, ["session", "symbol"])
    table = table.filter(pc.is_in(table["symbol"], pa.array(tickers)))
    names, days = table["symbol"].cast(pa.string()), table["session"].to_numpy().astype("datetime64[D]")
    return file.vendor, {name: np.unique(days[pc.equal(names, name).to_numpy()]) for name in pc.unique(names).to_pylist()}


def build_actions(files: Sequence[RawFile], bars: Sequence[RawFile], config: CanonicalConfig, executor: Executor) -> ActionsBuilt:
    """Reconcile the listed actions, derive what adjusted closes imply, and reconcile both."""
    tables = {file.vendor: read_all(file) for file in files}
    sources, rules = config.sources.corporate_actions, config.sources.identity

    def settle(derived: Sequence[Action]) -> ActionsResult:
        return reconcile_actions(tables, derived, sources, rules, config.tolerances.action, config.match_sessions)

    listed = settle(())
    derived: list[Action] = []
    refusals: list[Refusal] = []
    if config.implied_actions:
        splits = action_days(listed.table).splits
        useful = [file for file in bars if file.vendor in sources.priority and has_values(file, "adj_close")]
        for events, refused in executor.map(derive_actions, useful, [splits] * len(useful), [rules] * len(useful)):
            derived += events
            refusals += refused
    settled = settle(derived) if derived else listed
    known = action_days(settled.table)
    total = [file for file in bars if "total" in distinct(file, "basis")]
    dividends = dict(executor.map(derive_dividends, total, [known] * len(total), [rules] * len(total)))
    return ActionsBuilt(settled, known, BasisHistories(known.splits, dividends), len(derived), tuple(refusals))


@dataclass(frozen=True)
class ActionsBuilt:
    """Canonical actions, the look-ups made from them, and what the derivation found."""

    result: ActionsResult
    days: ActionDays
    histories: BasisHistories
    derived: int
    refusals: tuple[Refusal, ...]


def derive_actions(file: RawFile, splits: SplitHistory, rules: tuple[Identity, ...]) -> tuple[list[Action], list[Refusal]]:
    """Return what one vendor's adjusted closes imply; reads the columns of closes only."""
    return implied_events(file.vendor, read_columns(file, COLUMNS), splits, rules_of(rules, file.vendor))


def derive_dividends(file: RawFile, actions: ActionDays, rules: tuple[Identity, ...]) -> tuple[str, SplitHistory]:
    """Return by how much the dividends had lowered one vendor's total-return prices."""
    return file.vendor, dividends_in_total_basis(read_columns(file, COLUMNS), actions, rules_of(rules, file.vendor))


def build_index_levels(files: Sequence[RawFile], config: CanonicalConfig) -> RowsResult:
    """Reconcile all index series; they are small, and gap filling needs their whole history."""
    tables = {file.vendor: read_all(file) for file in files}
    return reconcile_rows("index_level", tables, config.sources.index_level, config.tolerances.level, config.fallback)


@dataclass(frozen=True)
class SurfaceTask:
    """One partition of option surfaces."""

    partition: Partition
    files: tuple[RawFile, ...]
    config: CanonicalConfig
    folder: Path

    @property
    def key(self) -> str:
        """The partition's name."""
        return self.partition.key


def build_surface_partition(task: SurfaceTask) -> RowsResult:
    """Build and write one partition of surfaces; return all but the columns of its rows that coverage does not need."""
    tables = {file.vendor: read_slice(file, task.partition.first, task.partition.last) for file in task.files}
    sources, tolerance = task.config.sources.options_surface, task.config.tolerances.volatility
    result = reconcile_rows("options_surface", tables, sources, tolerance, task.config.fallback)
    if len(result.table):
        write_table(task.folder / f"year={task.partition.year}" / task.partition.file, result.table)
    keys = result.table.select(["session", "symbol"]).group_by(["session", "symbol"]).aggregate([([], "count_all")])
    return replace(result, table=keys.sort_by([("session", "ascending"), ("symbol", "ascending")]))


def build_surfaces(
    files: Sequence[RawFile], outlines: Sequence[Outline], config: CanonicalConfig, folder: Path, executor: Executor
) -> list[RowsResult]:
    """Build all partitions of option surfaces."""
    partitions = plan_partitions(rows_in_window(outlines, config.start_date, config.end_date), config.partition_rows)
    cut = [clip(partition, config.start_date, config.end_date) for partition in partitions]
    return list(executor.map(build_surface_partition, [SurfaceTask(part, tuple(files), config, folder) for part in cut]))


def outlines_of(files: Sequence[RawFile], executor: Executor) -> list[Outline]:
    """Return the outline of each raw table."""
    return list(executor.map(outline, files))


def read_membership(workspace: Path, files: Sequence[str]) -> list[Membership]:
    """Return the rows of membership files.

    Raises
    ------
    MissingDataError
        If a file does not exist.
    ConfigError
        If a row has other columns, or a date that is none; names the file and the row.
    """
    found = []
    for name in files:
        try:
            lines = (workspace / name).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            raise MissingDataError(f"data_sources.membership_files names {name}, which does not exist below {workspace}") from None
        for number, row in enumerate(csv.DictReader(lines), start=2):
            found.append(load_section(f"{name}:{number}", {key: value or None for key, value in row.items()}, Membership))
    return found


def write_years(folder: Path, domain: str, table: pa.Table) -> None:
    """Write a canonical table as one file per year of its date."""
    years = pc.year(table[DATE_COLUMN[domain]])
    for year in sorted(pc.unique(years).to_pylist()):
        write_table(folder / f"year={year}" / "part.parquet", table.filter(pc.equal(years, year)))


def restated_tables(
    actions: ActionsBuilt, bars: Sequence[BarsPart], levels: RowsResult, surfaces: Sequence[RowsResult]
) -> dict[str, pa.Table]:
    """Return per domain the versions that later ones of the canonical rows replaced, sorted by version."""
    parts = {
        "equity_ohlcv": [part.restated for part in bars],
        "corporate_actions": [actions.result.restated],
        "index_level": [levels.restated],
        "options_surface": [item.restated for item in surfaces],
    }
    found = {}
    for domain, tables in parts.items():
        table = pa.concat_tables([CANONICAL[domain].empty_table(), *tables])
        found[domain] = table.sort_by([(name, "ascending") for name in (*KEYS[domain], *_VERSION)]).combine_chunks()
    return found


def write_empty(root: Path) -> None:
    """Write an empty table for each domain that has no rows: readers find a domain, not a missing folder."""
    for domain, schema in CANONICAL.items():
        if not any((root / domain).rglob("*.parquet")):
            write_table(root / domain / "part.parquet", schema.empty_table())


def _concerns(part: BarsPart, verdicts: Verdicts) -> Verdicts:
    return verdicts.within(part.symbols, part.partition.year)


def _entities(symbols: Sequence[str], rules: Sequence[Identity]) -> set[str]:
    return {*symbols, *(rule.entity for rule in rules if rule.symbol in symbols)}
