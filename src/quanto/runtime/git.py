"""The few questions that Quanto asks git, through its command."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from quanto.core.errors import GovernanceError, MissingDataError


@dataclass(frozen=True)
class Git:
    """Git in one working tree; answers are the words of the command."""

    workspace: Path

    def run(self, *arguments: str, stdin: bytes | None = None) -> bytes:
        """Return what `git <arguments>` prints.

        Raises
        ------
        GovernanceError
            With git's own message if it fails.
        """
        done = self.attempt(*arguments, stdin=stdin)
        if done.returncode:
            raise GovernanceError(f"git {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    def attempt(self, *arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Return the finished `git <arguments>`, whatever its exit code."""
        environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        command = ["git", *arguments]
        return subprocess.run(command, cwd=self.workspace, input=stdin, capture_output=True, env=environment, check=False)  # noqa: S603  # no shell

    def text(self, *arguments: str) -> str:
        """Return what `git <arguments>` prints, as stripped text; raises GovernanceError."""
        return self.run(*arguments).decode().strip()

    def commit_of(self, name: str) -> str | None:
        """Return the commit that a branch, tag or prefix names, or None."""
        if name.startswith("-"):
            return None
        done = self.attempt("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        return done.stdout.decode().strip() or None if done.returncode == 0 else None

    def has_file(self, commit: str, path: str) -> bool:
        """Whether a commit's tree has a file."""
        return self.attempt("cat-file", "-e", f"{commit}:{path}").returncode == 0

    def file(self, commit: str, path: str) -> bytes:
        """Return a file of a commit.

        Raises
        ------
        MissingDataError
            If the commit has no such file.
        """
        done = self.attempt("cat-file", "blob", f"{commit}:{path}")
        if done.returncode:
            raise MissingDataError(f"commit {commit[:12]} has no file {path}")
        return done.stdout

    def is_clean(self) -> bool:
        """Whether nothing tracked is changed and nothing untracked lies about."""
        return not self.text("status", "--porcelain")
