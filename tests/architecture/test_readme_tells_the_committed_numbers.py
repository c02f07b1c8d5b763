"""README's table of the default run is that of the committed metrics; `python tests/architecture/<this file>` rewrites it."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- default-run:begin -->", "<!-- default-run:end -->"
BOOKS = {
    "candidate": "candidate (shielded scorer)",
    "candidate_unshielded": "the same without the shield",
    "equal_weight_v1": "equal weight",
    "volatility_target_v1": "volatility target 25 % on equal weight",
    "buy_and_hold_v1": "buy and hold",
    "cash_v1": "cash",
}
COLUMNS = {
    "annual_return": ".1%",
    "annual_volatility": ".1%",
    "sharpe": ".2f",
    "max_drawdown": ".1%",
    "turnover_annual": ".1f",
    "gross_mean": ".0%",
}


def table() -> str:
    metrics = json.loads((ROOT / "reports/evaluation/metrics.json").read_text())
    rows = {row["book"]: row for row in metrics["books"]}
    lines = [
        "| book | return a year | volatility | Sharpe | worst drawdown | turnover a year | mean exposure |",
        "|---|---|---|---|---|---|---|",
    ]
    for book, title in BOOKS.items():
        cells = [format(rows[book][key], form) if rows[book][key] is not None else "n/a" for key, form in COLUMNS.items()]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    alpha = f"{metrics['alpha']:+.1%} a year, t = {metrics['alpha_t_statistic']:.2f}"
    lines += ["", f"Alpha against equal weight: {alpha}, {metrics['sessions']:,} sessions."]
    return "\n".join(lines)


def test_the_table_is_that_of_the_committed_metrics() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.split(BEGIN)[1].split(END)[0].strip() == table()


if __name__ == "__main__":
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}")
