"""The seed's six workflow steps as verbs, and `repro`, which runs all of them."""

from __future__ import annotations

import argparse

from quanto.cli.command import Command, Result, workspace
from quanto.runtime.dvc import run_dvc


def repro(options: argparse.Namespace) -> Result:
    """Run the whole pipeline, fill MLflow, and say where to look."""
    from quanto.runtime.after import after_run, summary

    folder = workspace(options)
    run_dvc(folder, ["repro"])
    facts = after_run(folder)
    return Result(summary(folder, facts), facts)


COMMANDS = (Command("repro", "workflow", "run the whole pipeline, fill MLflow, write the report", repro, ("quanto repro",)),)
