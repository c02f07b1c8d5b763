"""The quanto command: what people type. Each verb is a thin layer over the same stages that DVC runs."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    # First of all, and before NumPy is imported: threads, instruction sets, telemetry.
    from quanto.runtime.processor import fix_processor

    fix_processor()
    from quanto.cli.parser import run

    sys.exit(run(sys.argv[1:]))
