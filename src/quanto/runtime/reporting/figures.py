"""The pictures of the report, drawn by plotly from the tables of the evaluation."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

CANDIDATE = "candidate"
# Line colours that can be told apart on white and on black, also by people who do not see red and green apart.
COLOURS = ("#3b82f6", "#f59e0b", "#14b8a6", "#a855f7", "#ef4444", "#84cc16", "#6b7280")
MUTED = "#8b949e"
GRID = "rgba(128, 128, 128, 0.18)"
BAND = "rgba(239, 68, 68, 0.13)"
HEIGHT = 360
BOX = ("0.01", "0.25", "0.5", "0.75", "0.99")
# The usual reading of the population stability index (Siddiqi 2006): below 0.1 stable, above 0.25 moved.
PSI_WATCH, PSI_MOVED = 0.1, 0.25
# What the columns of the training curves are called, and the form of their axis where they are fractions.
CURVES = {
    "reward_growth": "reward per session",
    "growth": "log growth per session",
    "turnover": "turnover per session",
    "cost": "cost per session, as a fraction of the value",
    "exposure": "gross exposure",
    "entropy": "entropy of the policy",
    "approximate_kl": "approximate KL divergence of an update",
    "clip_fraction": "share of clipped samples",
    "explained_variance": "variance explained by the value function",
    "validation_growth": "log growth per session in validation",
}
CURVE_FORMS = {"growth": ".2%", "turnover": ".0%", "cost": ".3%", "exposure": ".0%", "validation_growth": ".2%", "clip_fraction": ".2%"}


@dataclass(frozen=True)
class Picture:
    """One figure: what it shows in a sentence, and the plotly figure."""

    title: str
    caption: str
    figure: go.Figure


def frame(content: bytes) -> pd.DataFrame:
    """Return a CSV table of the evaluation with its sessions as index."""
    return pd.read_csv(io.BytesIO(content), index_col="session", parse_dates=["session"])


def lines(
    title: str, caption: str, table: pd.DataFrame, names: Sequence[str], bands: Iterable[tuple[Any, Any]], form: str, log: bool = False
) -> Picture:
    """Return one line per book over the sessions; high-volatility episodes are shaded."""
    figure = go.Figure()
    for name, colour in zip([item for item in names if item in table], COLOURS, strict=False):
        width = 2.4 if name == CANDIDATE else 1.3
        figure.add_trace(go.Scatter(x=table.index, y=table[name], name=pretty(name), line={"color": colour, "width": width}, mode="lines"))
    for start, end in bands:
        figure.add_vrect(x0=start, x1=end, fillcolor=BAND, line_width=0, layer="below")
    figure.update_yaxes(tickformat=form, type="log" if log else "linear")
    return Picture(title, caption, style(figure))


def areas(title: str, caption: str, table: pd.DataFrame) -> Picture:
    """Return the columns stacked over the sessions; fractions."""
    figure = go.Figure()
    for index, name in enumerate(table):
        colour = COLOURS[index % len(COLOURS)]
        figure.add_trace(
            go.Scatter(x=table.index, y=table[name], name=str(name), stackgroup="all", line={"width": 0.4, "color": colour}, mode="lines")
        )
    figure.update_yaxes(tickformat=".0%")
    return Picture(title, caption, style(figure))


def regime_bars(slices: Mapping[str, Mapping[str, Any]], metric: str, title: str, caption: str) -> Picture:
    """Return grouped bars of one metric: a group per slice, a bar per book."""
    figure = go.Figure()
    books = list(dict.fromkeys(book for row in slices.values() for book in row))
    for book, colour in zip(books, COLOURS, strict=False):
        values = [row.get(book, {}).get(metric) for row in slices.values()]
        figure.add_trace(go.Bar(x=[pretty(name) for name in slices], y=values, name=pretty(book), marker_color=colour))
    figure.update_layout(barmode="group")
    figure.update_yaxes(tickformat=".0%")
    return Picture(title, caption, style(figure))


def curves(table: pd.DataFrame) -> list[Picture]:
    """Return one picture per training curve that has values, a line per seed."""
    pictures: list[Picture] = []
    for column in [str(name) for name in table if name not in ("seed", "step")]:
        if table[column].notna().sum() == 0:
            continue
        figure = go.Figure()
        for index, (seed, rows) in enumerate(table[["seed", "step", column]].dropna().groupby("seed")):
            line = {"color": COLOURS[index % len(COLOURS)], "width": 1.2}
            figure.add_trace(go.Scatter(x=rows["step"], y=rows[column], name=f"seed {seed}", line=line))
        figure.update_xaxes(title="environment steps")
        figure.update_yaxes(exponentformat="power", tickformat=CURVE_FORMS.get(column, ""))
        title = CURVES.get(column, pretty(column))
        pictures.append(Picture(title[:1].upper() + title[1:], f"{column}, by seed.", style(figure, height=260)))
    return pictures


def seed_bars(alphas: Mapping[str, float | None]) -> Picture:
    """Return the alpha of each seed as a bar."""
    figure = go.Figure(go.Bar(x=[pretty(name) for name in alphas], y=list(alphas.values()), marker_color=COLOURS[0]))
    figure.update_yaxes(tickformat=".1%", title="alpha a year")
    return Picture(
        "Seeds", "Alpha of each seed alone against the baseline: how much luck of initialisation there is.", style(figure, height=260)
    )


def heatmap(names: Sequence[str], matrix: Sequence[Sequence[float | None]]) -> Picture:
    """Return the correlation picture of the features."""
    labels = [pretty(name) for name in names]
    figure = go.Figure(go.Heatmap(x=labels, y=labels, z=matrix, zmin=-1, zmax=1, colorscale="RdBu", reversescale=True))
    figure.update_xaxes(tickangle=-60)
    return Picture("Feature correlation", "Correlation of the feature columns over the train window.", style(figure, height=560))


def distributions(columns: Mapping[str, Mapping[str, Any]]) -> Picture:
    """Return one box per feature column, in its own deviations from its mean, with where the test window's mean moved to.

    Whiskers are the quantiles 1 and 99 %; a column without numbers or without spread is left out.
    """
    figure = go.Figure()
    shown = {
        name: item
        for name, item in columns.items()
        if item.get("std") and all(item.get("quantiles", {}).get(key) is not None for key in BOX)
    }
    scaled = {name: [(item["quantiles"][key] - item["mean"]) / item["std"] for key in BOX] for name, item in shown.items()}
    low, first, middle, third, high = (list(values) for values in zip(*scaled.values(), strict=True)) if scaled else ([],) * 5
    names = [pretty(name) for name in shown]
    box = {"lowerfence": low, "q1": first, "median": middle, "q3": third, "upperfence": high}
    figure.add_trace(go.Box(y=names, **box, orientation="h", name="all sessions", marker_color=COLOURS[0], line_width=1.2))
    moved = [item.get("drift", {}).get("mean_shift") for item in shown.values()]
    figure.add_trace(
        go.Scatter(
            x=moved,
            y=names,
            mode="markers",
            name="mean in test less mean in train (train deviations)",
            marker={"color": COLOURS[1], "symbol": "diamond", "size": 8},
        )
    )
    figure.update_xaxes(title="standard deviations of the column")
    figure.update_yaxes(autorange="reversed")
    caption = "Quantiles 1, 25, 50, 75, 99 %; a diamond far from 0 is a column whose level moved between train and test."
    return Picture("Distribution of the columns", caption, row_per_name(figure, len(names)))


def drift_bars(columns: Mapping[str, Mapping[str, Any]]) -> Picture:
    """Return the drift of each feature column as a bar, with the limits that are usual for it."""
    drifts = {name: item.get("drift", {}).get("stability_index") for name, item in columns.items()}
    known = {pretty(name): value for name, value in drifts.items() if value is not None}
    colours = [COLOURS[4] if value > PSI_MOVED else COLOURS[1] if value > PSI_WATCH else COLOURS[2] for value in known.values()]
    figure = go.Figure(go.Bar(x=list(known.values()), y=list(known), orientation="h", marker_color=colours))
    for limit in (PSI_WATCH, PSI_MOVED):
        figure.add_vline(x=limit, line={"color": MUTED, "width": 1, "dash": "dot"})
    figure.update_xaxes(title="population stability index")
    figure.update_yaxes(autorange="reversed")
    caption = f"Train to test window; dotted: {PSI_WATCH} (look) and {PSI_MOVED} (moved)."
    return Picture("Drift of the columns", caption, row_per_name(figure, len(known)))


def row_per_name(figure: go.Figure, names: int) -> go.Figure:
    """Return a figure with a name per row in the house style, high enough for all of them to be read."""
    styled = style(figure, height=96 + 24 * names)
    styled.update_layout(hovermode="closest")
    styled.update_yaxes(dtick=1)
    return styled


def style(figure: go.Figure, height: int = HEIGHT) -> go.Figure:
    """Return the figure in the house style: no background of its own, so that it stands on light and dark pages."""
    figure.update_layout(
        height=height,
        margin={"l": 56, "r": 12, "t": 12, "b": 40},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": MUTED, "size": 12},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        template="none",
        hovermode="x unified",
        hoverlabel={"font": {"color": "#111"}, "bgcolor": "#fff"},
    )
    figure.update_xaxes(gridcolor=GRID, linecolor=GRID, zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor=GRID, zerolinecolor=MUTED, automargin=True)
    return figure


def pretty(name: str) -> str:
    """Return a name of the files as words for people, without its version."""
    words = name.removesuffix("_v1").replace("matched_", "matched: ").replace("_", " ")
    return words.strip()
