"""Annotated tags with SSH signatures, in GTO's naming; trust is git's allowed-signers file, verdicts are exit codes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from quanto.core.errors import GovernanceError
from quanto.runtime.git import Git

ARTIFACT = "policy"
VERSION_TAG = re.compile(rf"^{ARTIFACT}@v(\d+)\.(\d+)\.(\d+)$")
STAGE_TAG = re.compile(rf"^{ARTIFACT}#([a-z]+)#(\d+)$")
SIGNERS = "conf/governance/allowed_signers"


@dataclass(frozen=True)
class Tag:
    """An annotated tag: its name, the commit it points to, and its message without the signature."""

    name: str
    commit: str
    message: str
    signed: bool


def read_tag(workspace: Path, name: str) -> Tag | None:
    """Return an annotated tag of ours, or None where the name is no annotated tag."""
    git = Git(workspace)
    done = git.attempt("cat-file", "tag", f"refs/tags/{name}")
    commit = git.commit_of(f"refs/tags/{name}")
    if done.returncode or commit is None:
        return None
    header, _, body = done.stdout.decode(errors="replace").partition("\n\n")
    message, mark, _ = body.partition("-----BEGIN SSH SIGNATURE-----")
    if f"tag {name}" not in header.splitlines():
        raise GovernanceError(f"the reference {name} holds a tag of another name; somebody moved it")
    return Tag(name, commit, message.rstrip("\n"), signed=bool(mark))


def create_tag(workspace: Path, name: str, commit: str, message: str, *, signed: bool) -> None:
    """Create an annotated tag on a commit, signed with git's `user.signingkey`.

    Raises
    ------
    GovernanceError
        If git cannot sign (no key) or the tag exists.
    """
    git = Git(workspace)
    if signed and not git.attempt("config", "user.signingkey").stdout.strip():
        raise GovernanceError(
            "no signing key: set one with `git config user.signingkey ~/.ssh/id_ed25519.pub` (and add it to the allowed signers), "
            "or pass --unsigned, which is recorded and never accepted for production"
        )
    kind = ["-c", "gpg.format=ssh", "tag", "--sign"] if signed else ["tag", "--annotate", "--no-sign"]
    git.run(*kind, "--cleanup=verbatim", "--file=-", name, commit, stdin=message.encode() + b"\n")


def signature_fault(workspace: Path, name: str, signers: Path) -> str | None:
    """Return why the signature of a tag is not to be trusted, or None if it is good and its key allowed."""
    if not signers.is_file():
        return f"no allowed signers at {signers}; name the keys you trust (--signers FILE)"
    done = Git(workspace).attempt("-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={signers}", "verify-tag", "--raw", name)
    if done.returncode == 0:
        return None
    words = " ".join(done.stderr.decode(errors="replace").split())
    return f"the signature of {name} is not good by an allowed key ({words or 'no signature'})"


def stage_tags(workspace: Path, tier: str | None = None) -> list[str]:
    """Return the names of all stage tags (of one tier), in the order of their numbers."""
    names = Git(workspace).text("tag", "--list", f"{ARTIFACT}#*").splitlines()
    matches = [(match, name) for name in names if (match := STAGE_TAG.match(name)) and tier in (None, match.group(1))]
    return [name for match, name in sorted(matches, key=lambda item: int(item[0].group(2)))]


def next_stage_tag(workspace: Path, tier: str) -> str:
    """Return the name of the next stage tag; numbers count over all tiers, as GTO's do."""
    numbers = [int(match.group(2)) for name in stage_tags(workspace) if (match := STAGE_TAG.match(name))]
    return f"{ARTIFACT}#{tier}#{max(numbers, default=0) + 1}"


def version_tag(workspace: Path, commit: str) -> str | None:
    """Return the version tag that stands on a commit, or None."""
    names = Git(workspace).text("tag", "--points-at", commit, "--list", f"{ARTIFACT}@v*").splitlines()
    return next((name for name in names if VERSION_TAG.match(name)), None)


def next_version(workspace: Path) -> str:
    """Return the name of the next version tag: the minor number counts up."""
    names = Git(workspace).text("tag", "--list", f"{ARTIFACT}@v*").splitlines()
    versions = [tuple(map(int, match.groups())) for name in names if (match := VERSION_TAG.match(name))]
    major, minor, _ = max(versions, default=(1, -1, 0))
    return f"{ARTIFACT}@v{major}.{minor + 1}.0"
