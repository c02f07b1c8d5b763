"""The router: which vendor is asked for what. Pure; a dry run prints what it returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

from quanto.core.errors import ConfigError
from quanto.market.calendar import FIRST, next_session
from quanto.stages.ingest.config import IngestConfig, VendorEntry
from quanto.stages.ingest.registry import VENDORS
from quanto.stages.ingest.transport import TransportSettings
from quanto.stages.ingest.vendor import IngestRequest, Shard, Vendor


@dataclass(frozen=True)
class Route:
    """One vendor asked for one domain: the request and the shards that answer it (none: it has nothing to offer)."""

    entry: VendorEntry
    request: IngestRequest
    shards: tuple[Shard, ...]


def make_vendor(entry: VendorEntry, workspace: Path) -> Vendor:
    """Return the vendor that an entry of the configuration describes."""
    kind = VENDORS[entry.registered]
    return kind.build(entry.name, entry.typed_options(), workspace)


def route(config: IngestConfig, workspace: Path) -> tuple[Route, ...]:
    """Return every (vendor, domain) of the configuration with its request and shards, in the configuration's order.

    Raises
    ------
    ConfigError
        If a vendor plans two shards with one key.
    """
    routes = []
    for entry in config.vendors:
        vendor = make_vendor(entry, workspace)
        for domain in entry.domains:
            request = _chosen(config, entry, request_for(config, domain, entry.interval), workspace)
            shards = () if request is None else vendor.plan(request)
            _refuse_repeated_keys(entry.name, domain, shards)
            if request is not None:
                routes.append(Route(entry, request, shards))
    return tuple(routes)


def _chosen(config: IngestConfig, entry: VendorEntry, request: IngestRequest, workspace: Path) -> IngestRequest | None:
    """Return the part of a request that this entry answers, None where its counterpart answers all of it.

    Where one vendor is configured both ways, `rest` and `flatfile` choose; `auto` takes files where they are fewer than
    the requests would be (or hold more symbols than were asked for), but for sessions whose file may still be replaced.
    """
    others = config.counterparts(entry, request.domain)
    if not others:
        return request
    bulk = bool(VENDORS[entry.registered].bulk_of)
    if config.mode != "auto":
        return request if config.mode in VENDORS[entry.registered].modes else None
    files, asking = (entry, others[0]) if bulk else (others[0], entry)
    options = files.typed_options()
    if not getattr(options, "all_symbols", False) and _cost(files, request, workspace) >= _cost(asking, request, workspace):
        return None if bulk else request
    final = config.as_of - timedelta(days=int(getattr(options, "final_after_days", 0)))
    return replace(request, end=min(request.end, final)) if bulk else replace(request, start=max(request.start, final + timedelta(days=1)))


def _cost(entry: VendorEntry, request: IngestRequest, workspace: Path) -> int:
    vendor = make_vendor(entry, workspace)
    estimate = getattr(vendor, "requests_of", None)
    return sum(estimate(shard) for shard in vendor.plan(request)) if estimate else 0


def request_for(config: IngestConfig, domain: str, interval: str | None = None) -> IngestRequest:
    """Return what a vendor of a domain is asked; `interval` is the vendor's own, None where it has none.

    Bars and surfaces begin `history_sessions` before the start, for look-back windows. Index levels begin at
    `index_start`. Corporate actions reach to `as_of`: a vendor's adjusted prices count splits after the last session.
    """
    symbols = config.series if domain == "index_level" else config.symbols
    end = config.end
    start = min(config.start, config.index_start) if domain == "index_level" else history_start(config)
    if domain == "corporate_actions":
        end = config.as_of
    return IngestRequest(domain, symbols, start, end, config.as_of, interval or config.interval, config.mode)


def history_start(config: IngestConfig) -> date:
    """Return the first day that is asked of equities; not before the calendar begins."""
    if config.history_sessions == 0:
        return config.start
    try:
        return next_session(config.start, -config.history_sessions)
    except ValueError:
        return FIRST


def plan_rows(config: IngestConfig, workspace: Path) -> list[dict[str, object]]:
    """Return what a dry run prints: every shard with the number of requests that it takes at least; nothing is asked.

    `requests` is the vendor's own estimate (a page may be followed by another), 0 for what is local.
    """
    rows: list[dict[str, object]] = []
    for item in route(config, workspace):
        vendor = make_vendor(item.entry, workspace)
        estimate = getattr(vendor, "requests_of", None)
        rows += [
            {
                "vendor": item.entry.name,
                "domain": item.request.domain,
                "shard": shard.key,
                "start": shard.start,
                "end": shard.end,
                "requests": estimate(shard) if estimate else 0,
            }
            for shard in item.shards
        ]
    return rows


def rate_budget(config: IngestConfig, rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Return for each vendor on the network what its planned requests cost at the rate that its configuration allows.

    `minutes` is the time that the limiter alone takes: a window's worth of requests goes at once, the next one a window
    later. `rows` is what `plan_rows` gave.
    """
    budgets: list[dict[str, object]] = []
    for entry in config.vendors:
        transport = getattr(entry.typed_options(), "transport", None)
        planned = sum(int(str(row["requests"])) for row in rows if row["vendor"] == entry.name)
        if isinstance(transport, TransportSettings) and planned:
            windows = (planned - 1) // transport.requests
            budgets.append(
                {
                    "vendor": entry.name,
                    "requests": planned,
                    "requests_per_minute": round(transport.requests * 60.0 / transport.window_seconds, 3),
                    "minutes": round(windows * transport.window_seconds / 60.0, 1),
                }
            )
    return budgets


def _refuse_repeated_keys(vendor: str, domain: str, shards: Iterable[Shard]) -> None:
    seen: set[str] = set()
    for shard in shards:
        if shard.key in seen:
            raise ConfigError(f"vendor {vendor} plans two shards called {shard.key} for {domain}; a key is given once")
        seen.add(shard.key)
