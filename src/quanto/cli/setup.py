"""Verbs around the checkout: params, ui, completion."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict

from quanto.cli.command import Command, Result, workspace
from quanto.core.errors import QuantoError
from quanto.core.store import data_root


def params(options: argparse.Namespace) -> Result:
    """Compose params.yaml from conf/ and check every section."""
    from quanto.runtime.composition import check_params, compose_params, params_text, write_params

    folder = workspace(options)
    composed = compose_params(folder, options.override)
    check_params(composed)
    path = folder / "params.yaml"
    text = params_text(composed)
    same = path.is_file() and path.read_text(encoding="utf-8") == text
    if options.check:
        if same:
            return Result(("params.yaml equals the composition of conf/",), {"equal": True})
        return Result(("params.yaml differs from the composition of conf/; run `make params`",), {"equal": False}, exit_code=1)
    if not same:
        write_params(folder, composed)
    return Result((f"params.yaml {'is up to date' if same else 'written'}; all sections are valid",), {"changed": not same})


def ui(options: argparse.Namespace) -> Result:
    """Serve MLflow on localhost until interrupted."""
    from quanto.runtime.tracking import open_client, tracking_uri

    open_client()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        tracking_uri(),
        "--host",
        "127.0.0.1",
        "--port",
        str(options.port),
    ]
    os.chdir(data_root())
    # In place of this process: whoever stops `quanto ui` stops the server.
    os.execve(sys.executable, command, {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"})  # noqa: S606  # no shell


def doctor(options: argparse.Namespace) -> Result:
    """Print what could stop a run on this machine, each finding with its remedy."""
    from quanto.runtime.doctor import examine

    findings = list(examine(workspace(options)))
    lines = [
        f"{'ok  ' if item.remedy is None else 'look'} {item.topic:<12} {item.found}" + (f"  ->  {item.remedy}" if item.remedy else "")
        for item in findings
    ]
    return Result(tuple(lines), [asdict(item) for item in findings])


def completion(options: argparse.Namespace) -> Result:
    """Print a completion script for a shell."""
    import shtab

    from quanto.cli.parser import build_parser

    try:
        text = shtab.complete(build_parser(), shell=options.shell)
    except NotImplementedError as error:
        raise QuantoError(f"no completion for {options.shell}: {error}") from error
    return Result((text,), {"script": text})


def _params_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("override", nargs="*", help="Hydra overrides, e.g. experiment=none train.seeds=[1]")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if params.yaml differs")


def _ui_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=5000)


def _completion_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))


COMMANDS = (
    Command("doctor", "set-up", "what could stop a run on this machine, and its remedy", doctor, ("quanto doctor",)),
    Command(
        "params",
        "set-up",
        "compose params.yaml from conf/ and check every section",
        params,
        ("quanto params", "quanto params --check"),
        _params_arguments,
    ),
    Command("ui", "set-up", "open MLflow on localhost", ui, ("quanto ui --port 5001",), _ui_arguments),
    Command(
        "completion",
        "set-up",
        "print a completion script for your shell",
        completion,
        ("quanto completion bash > ~/.quanto-completion",),
        _completion_arguments,
    ),
)
