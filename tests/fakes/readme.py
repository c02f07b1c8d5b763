"""The README as a script: its fenced blocks, and what a shell of a test runs for each of their lines."""

from __future__ import annotations

import re

# What the environment of the tests has done already; everything else runs as it is written.
STANDS = {"make setup": "python -m quanto.runtime.checkout", "source .venv/bin/activate": ":"}
FAILS = re.compile(r"^(?P<command>.+?)\s+# exits with 1\b.*$")


def fenced_blocks(text: str, heading: str) -> list[str]:
    """Return the bash blocks of the section with this heading, in their order."""
    section = re.split(rf"^### {re.escape(heading)}$", text, flags=re.MULTILINE)[1]
    section = re.split(r"^#{2,3} ", section, flags=re.MULTILINE)[0]
    return re.findall(r"^```bash\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def script_of(block: str) -> str:
    """Return a block as a script that stops at the first line whose exit code is not what the block says."""
    lines = ["set -euo pipefail"]
    for line in block.splitlines():
        failing = FAILS.match(line)
        lines.append(f"echo '$ {line.replace(chr(39), '')}' >&2")
        if failing:
            lines += ["code=0", f"{{ {failing['command']}; }} 2>&1 || code=$?", 'test "$code" = 1']
        else:
            lines.append(STANDS.get(line.strip(), line))
    return "\n".join(lines)
