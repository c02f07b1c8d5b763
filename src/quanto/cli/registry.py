"""The closed table of verbs, in the order of the help."""

from __future__ import annotations

from quanto.cli import experiments, setup, workflow
from quanto.cli.command import Command
from quanto.core.registry import Registry

GROUPS = ("workflow", "experiments", "set-up")

COMMANDS: Registry[Command] = Registry("verb", *workflow.COMMANDS, *experiments.COMMANDS, *setup.COMMANDS)
