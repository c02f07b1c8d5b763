"""The identity of the gates: their code as a syntax tree, without comments and docstrings, and their thresholds."""

from __future__ import annotations

import ast
from pathlib import Path

import quanto
from quanto.core.digest import digest_value
from quanto.stages.qualify.config import Thresholds

# What the path from returns to verdict runs through, relative to the package.
GATE_CODE = (
    "market/regimes.py",
    "portfolio/bootstrap.py",
    "portfolio/drawdowns.py",
    "portfolio/multiplicity.py",
    "portfolio/series.py",
    "portfolio/significance.py",
    "stages/qualify/edge.py",
    "stages/qualify/evidence.py",
    "stages/qualify/gate.py",
    "stages/qualify/hard.py",
    "stages/qualify/inferiority.py",
    "stages/qualify/regime.py",
    "stages/qualify/registry.py",
    "stages/qualify/verdict.py",
)


def gate_digest(thresholds: Thresholds) -> str:
    """Return the digest of gate code and thresholds: a comment or a docstring does not change it, a number does."""
    root = Path(next(iter(quanto.__path__)))
    code = {name: syntax(root.joinpath(name).read_text(encoding="utf-8")) for name in GATE_CODE}
    return digest_value({"code": code, "thresholds": thresholds.model_dump(mode="json")})


def syntax(source: str) -> str:
    """Return the syntax tree of Python source as text, without docstrings, comments and positions."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
