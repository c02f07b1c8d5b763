"""The model card: what the policy is, what it was tried on, what it may not be used for. Each claim names its evidence."""

from __future__ import annotations

from collections.abc import Mapping

from jinja2 import ChainableUndefined, Environment

CARD = """\
# Model card

{{ purpose }}

{% if record.selection != "point_in_time" -%}
> **Hindsight universe.** These names were chosen knowing that they survived and did well. No absolute return below is a
> claim about the future, baselines on the same names share the bias, and the production tier is refused.

{% endif -%}
## Verdicts

| tier | verdict | how often pure noise gets it |
|---|---|---|
{% for tier in tiers -%}
| {{ tier }} | {{ record.verdicts[tier] }} | {{ report.noise_gets_this_tier[tier] | percent }} |
{% endfor %}
Eligible in this graph for: {{ record.eligible_tiers | join(", ") or "nothing" }}.
{% for blocker in record.blocked_by %}
Blocked: {{ blocker }}.
{% endfor %}
{% for tier, reason in reasons -%}
- {{ tier }}: {{ reason }}
{% endfor %}
{{ "reports/promotion/qualification_report.json" | cite }}

## Data

- Symbols: {{ evaluation.symbols | join(", ") }}; selection: {{ report.selection }}.
- Trained on {{ policy.train_start }} to {{ policy.train_end }}; {{ policy.members | length }} seeds, the ensemble decides.
- Evaluated on {{ report.window.first_session }} to {{ report.window.last_session }}, {{ report.window.sessions }} sessions,
  out of sample.
- Features: {{ policy.observation.feature_set }}, {{ policy.observation.regime_feature_set }};
  leak proof {{ "reports/features/leak_proof.json" | cite }};
  reconciliation {{ "reports/canonical/canonical_report.json" | cite }}.
- Looks at this holdout (K): {{ report.trials.count }}, of which declared from elsewhere: {{ report.trials.prior }}.

{{ "models" | cite }} {{ "reports/evaluation/evaluation.json" | cite }}

## Results beside challengers, out of sample, net of costs

| book | return a year | volatility | Sharpe | max drawdown | turnover a year | mean exposure |
|---|---|---|---|---|---|---|
{% for row in metrics.books if not row.book.startswith(("member_", "matched_")) -%}
| {{ row.book }} |{% for name in shown %} {{ row[name] | number }} |{% endfor %}
{% endfor %}
{% for item in report.beside -%}
- {{ item.sentence }}.
{% endfor %}
{{ "reports/evaluation/metrics.json" | cite }}

{% if books.candidate_unshielded -%}
## Where the protection comes from

- Deepest drawdown with the shield {{ books.candidate.max_drawdown | number }}, without it
  {{ books.candidate_unshielded.max_drawdown | number }}, of the plain volatility target on equal weight
  {{ books.volatility_target_v1.max_drawdown | number }}.
- Alpha of the candidate against the plain volatility target: {{ rule.alpha | number }} a year, t {{ rule.t_statistic | number }}.
  Protection that a rule gives is the rule's.

{{ "reports/evaluation/evaluation.json" | cite }}

{% endif -%}
## Assumptions and limits

- Decided after the close, sized at that close, filled at the next open; long only; {{ evaluation.costs.linear_cost_bps | number }}
  bps of the traded value on average; the growth advantage over {{ report.baseline }} is used up at
  {{ evaluation.costs.break_even_bps | number }} bps.
- An annual information ratio below {{ report.diagnostics.detectable_information_ratio | number }} cannot be seen in this window
  with 80 % power: that no edge was shown does not show that there is none, nor the reverse.
- Under the account's risk policy (its checks, halts and collars) the deepest drawdown is
  {{ evaluation.risk.with.max_drawdown | number }} and the return {{ evaluation.risk.with.annual_return | number }} a year;
  {{ evaluation.risk.denied_orders }} orders were denied, {{ evaluation.risk.halted_sessions }} sessions halted.
- Not for: names outside the list, intraday decisions, leverage, shorting, another cost regime.

{{ "reports/promotion/qualification_report.json" | cite }}

## What to monitor

- Drawdown inside a high-volatility episode, against {{ report.thresholds.drawdown_limit | number }}.
- Exposure in high volatility: at least {{ report.thresholds.protection_exposure | number }} below that of the other sessions.
- Turnover against {{ metrics.turnover_annual | number }} a year, and fills against the simulator's.
- Feature coverage and drift against the train window, rows in quarantine, members that disagree.

{{ "reports/evaluation/metrics.json" | cite }}

## Evidence

Policy {{ record.policy }}, gates {{ record.gate_digest }}.

| what | sha256 |
|---|---|
{% for path, digest in record.subjects | dictsort -%}
| {{ path }} | {{ digest }} |
{% endfor -%}
"""
TIERS = ("research", "candidate", "production")
SHOWN = ("annual_return", "annual_volatility", "sharpe", "max_drawdown", "turnover_annual", "gross_mean")


def model_card(
    purpose: str,
    record: Mapping[str, object],
    report: Mapping[str, object],
    metrics: Mapping[str, object],
    evaluation: Mapping[str, object],
    policy: Mapping[str, object],
) -> str:
    """Return the model card as Markdown; a number that is missing reads "not defined".

    Parameters
    ----------
    record, report, metrics, evaluation
        The promotion record, the qualification report, metrics.json and evaluation.json.
    policy
        The content of models/policy.json.
    """
    subjects = record.get("subjects")
    digests = subjects if isinstance(subjects, Mapping) else {}
    # Markdown, not HTML: escaping would break the tables.
    environment = Environment(undefined=ChainableUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701
    environment.filters |= {
        "number": _number,
        "percent": _percent,
        "cite": lambda path: f"[{path} {str(digests.get(path, 'absent'))[:12]}]",
    }
    rows = metrics.get("books")
    books = {row["book"]: row for row in rows if isinstance(row, Mapping)} if isinstance(rows, list) else {}
    comparisons = evaluation.get("comparisons")
    rule = comparisons.get("volatility_target_v1", {}) if isinstance(comparisons, Mapping) else {}
    return environment.from_string(CARD).render(
        purpose=purpose,
        record=record,
        report=report,
        metrics=metrics,
        evaluation=evaluation,
        policy=policy,
        books=books,
        rule=rule,
        shown=SHOWN,
        reasons=_reasons(record),
        tiers=TIERS,
    )


def _reasons(record: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return each reason once, with the lowest tier that it holds back."""
    found = record.get("reasons")
    first: dict[str, str] = {}
    for tier in TIERS:
        for reason in found.get(tier, ()) if isinstance(found, Mapping) else ():
            first.setdefault(str(reason), tier)
    return [(tier, reason) for reason, tier in first.items()]


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) and not isinstance(value, bool) else "not defined"


def _percent(value: object) -> str:
    return f"{value:.1%}" if isinstance(value, int | float) and not isinstance(value, bool) else "not measured"
