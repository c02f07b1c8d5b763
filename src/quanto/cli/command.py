"""What a verb is, and how its result reaches the person or the machine that asked."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """What a verb found: lines for people, a JSON value for machines, and the exit code (0 only on success)."""

    lines: tuple[str, ...] = ()
    value: object = None
    exit_code: int = 0


@dataclass(frozen=True)
class Command:
    """One verb: its group in the help, one sentence, examples, its arguments, and what it does."""

    name: str
    group: str
    summary: str
    run: Callable[[argparse.Namespace], Result]
    examples: tuple[str, ...] = ()
    arguments: Callable[[argparse.ArgumentParser], None] | None = None


def workspace(options: argparse.Namespace) -> Path:
    """Return the checkout that a command works on: --repo, else the working folder or the nearest one above with a dvc.yaml."""
    start = Path(options.repo).absolute()
    return next((folder for folder in (start, *start.parents) if (folder / "dvc.yaml").is_file()), start)


def emit(result: Result, *, as_json: bool) -> None:
    """Print a result: JSON on one line for machines, else its lines."""
    if as_json:
        sys.stdout.write(json.dumps(result.value, sort_keys=True, default=str) + "\n")
    elif result.lines:
        sys.stdout.write("\n".join(result.lines) + "\n")
