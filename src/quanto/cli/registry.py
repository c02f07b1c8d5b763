"""The closed table of verbs, in the order of the help."""

from __future__ import annotations

from quanto.cli import data, experiments, governance, judging, running, setup, workflow
from quanto.cli.command import Command
from quanto.core.registry import Registry

GROUPS = ("workflow", "experiments", "governance", "execution", "set-up")

COMMANDS: Registry[Command] = Registry(
    "verb",
    *data.COMMANDS,
    *workflow.COMMANDS,
    *judging.COMMANDS,
    *running.COMMANDS,
    *experiments.COMMANDS,
    *governance.COMMANDS,
    *setup.COMMANDS,
)
