"""`python -m quanto <stage>`: what dvc.yaml calls. Imports only the stage that runs."""

from __future__ import annotations

import sys

from quanto.runtime.processor import fix_processor

# Before NumPy or torch is imported: they read these settings once.
fix_processor()


def main(arguments: list[str]) -> int:
    """Run one stage below the working folder and return the exit code."""
    from quanto.runtime.frame import main as run  # noqa: PLC0415  # after fix_processor, which it depends on

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
