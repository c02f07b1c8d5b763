"""The grammar of the quanto command and its exit codes: 0 success, 1 an error or a failed check, 2 a wrong call."""

from __future__ import annotations

import argparse
import json
import logging
import sys

from quanto.cli.command import Command, emit
from quanto.cli.registry import COMMANDS, GROUPS
from quanto.core.errors import QuantoError


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; an error of ours or of a file is one message, never a traceback."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    command: Command | None = getattr(options, "command", None)
    if command is None:
        parser.print_help()
        return 2
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        result = command.run(options)
    except (QuantoError, OSError) as error:
        notes = list(getattr(error, "__notes__", []))
        if options.json:
            sys.stdout.write(json.dumps({"error": type(error).__name__, "message": str(error), "notes": notes}) + "\n")
        sys.stderr.write("\n  ".join([f"{type(error).__name__}: {error}", *notes]) + "\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped; run the same command again to go on\n")
        return 130
    emit(result, as_json=options.json)
    return result.exit_code


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs, grouped in its help."""
    parser = argparse.ArgumentParser(
        prog="quanto",
        description="From market data to governed execution: a DVC workflow, its experiments, and the decisions on them.",
        epilog=_overview(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(metavar="VERB", title="verbs", prog="quanto")
    for command in COMMANDS.values():
        _add(verbs, command)
    return parser


def _add(verbs: argparse._SubParsersAction[argparse.ArgumentParser], command: Command) -> None:
    examples = "examples:\n" + "\n".join(f"  {line}" for line in command.examples) if command.examples else None
    parser = verbs.add_parser(
        command.name, description=command.summary, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--repo", default=".", metavar="FOLDER", help="the checkout to work on (default: the working folder)")
    if command.arguments is not None:
        command.arguments(parser)
    parser.set_defaults(command=command)


def _overview() -> str:
    lines: list[str] = []
    for group in GROUPS:
        lines.append(f"{group}:")
        lines += [f"  {item.name:<26}{item.summary}" for item in COMMANDS.values() if item.group == group]
        lines.append("")
    lines.append("`quanto VERB --help` shows flags and examples. Exit codes: 0 success, 1 error or failed check, 2 wrong call.")
    return "\n".join(lines)
