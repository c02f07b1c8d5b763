"""Run every benchmark and compare its ratios with the committed ones: a fall of more than 20 % is an error.

    python benchmarks/compare.py            run all and compare with benchmarks/results.json
    python benchmarks/compare.py --update   run all and write benchmarks/results.json (commit it)
    python benchmarks/compare.py NAME ...   only these files

Each benchmark ends with one line of JSON: {"name", "value", "unit", "peer", "ratio", "goal", "ok"}, or a list of these.
Ratios are against a peer or a bare limit that was measured in the same run, so they travel between machines.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
TOLERANCE = 0.2


def run(path: Path) -> list[dict[str, Any]]:
    """Return the claims of one benchmark."""
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent / "src")}
    done = subprocess.run([sys.executable, str(path)], env=environment, stdout=subprocess.PIPE, text=True, check=True, cwd=FOLDER.parent)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return found if isinstance(found, list) else [found]


def regressions(new: dict[str, dict[str, Any]], old: dict[str, dict[str, Any]]) -> list[str]:
    """Return a sentence for every ratio that fell by more than the tolerance."""
    fallen = []
    for name, claim in new.items():
        before = old.get(name, {}).get("ratio")
        if before and claim["ratio"] is not None and claim["ratio"] < before * (1 - TOLERANCE):
            fallen.append(f"{name}: ratio {claim['ratio']:.3g}, committed {before:.3g}")
    return fallen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    paths = sorted(
        path for path in FOLDER.glob("*.py") if path.name != Path(__file__).name and (not options.names or path.stem in options.names)
    )
    old = json.loads(RESULTS.read_text())["claims"] if RESULTS.is_file() else {}
    new: dict[str, dict[str, Any]] = {}
    for path in paths:
        print(f"{path.stem} ...", file=sys.stderr, flush=True)
        for claim in run(path):
            new[claim["name"]] = claim
            verdict = "ok" if claim["ok"] else "MISSED"
            print(f"  {claim['name']}: {claim['value']:.4g} {claim['unit']}, ratio {claim['ratio']} (goal {claim['goal']}, {verdict})")
            print(f"    against {claim['peer']}")
    if options.update:
        machine = {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
        RESULTS.write_text(
            json.dumps({"machine": machine, "claims": dict(sorted({**old, **new}.items()))}, indent=2, sort_keys=True) + "\n"
        )
        return 0
    fallen = regressions(new, old)
    print("\n".join(fallen) or "no ratio fell by more than 20 %")
    return int(bool(fallen))


if __name__ == "__main__":
    sys.exit(main())
