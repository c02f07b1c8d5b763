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
