"""Signed tags with a real ssh key in a real repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from quanto.core.errors import GovernanceError
from quanto.runtime.signing import create_tag, next_stage_tag, next_version, read_tag, signature_fault, stage_tags, version_tag


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def make_key(folder: Path, name: str) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)], check=True)
    return folder / f"{name}.pub"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "user.name", "risk")
    git(folder, "config", "user.email", "risk@desk.example")
    git(folder, "config", "user.signingkey", str(make_key(tmp_path, "trusted")))
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    (tmp_path / "signers").write_text(f"risk@desk.example {(tmp_path / 'trusted.pub').read_text()}")
    return folder


def test_a_signed_tag_carries_its_message_and_is_verified_by_exit_code(repository: Path, tmp_path: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    create_tag(repository, "policy#candidate#1", commit, '{"a":1}', signed=True)
    tag = read_tag(repository, "policy#candidate#1")
    assert tag is not None
    assert (tag.commit, tag.message, tag.signed) == (commit, '{"a":1}', True)
    assert signature_fault(repository, tag.name, tmp_path / "signers") is None


def test_a_key_that_is_not_allowed_is_refused_although_git_prints_good_signature(repository: Path, tmp_path: Path) -> None:
    create_tag(repository, "policy#candidate#1", "HEAD", "{}", signed=True)
    other = make_key(tmp_path, "other")
    (tmp_path / "others").write_text(f"risk@desk.example {other.read_text()}")
    fault = signature_fault(repository, "policy#candidate#1", tmp_path / "others")
    assert fault is not None
    assert "not good by an allowed key" in fault


def test_an_unsigned_tag_has_no_good_signature(repository: Path, tmp_path: Path) -> None:
    create_tag(repository, "policy#candidate#1", "HEAD", "{}", signed=False)
    assert read_tag(repository, "policy#candidate#1").signed is False  # type: ignore[union-attr]  # it was just made
    assert "no signature" in str(signature_fault(repository, "policy#candidate#1", tmp_path / "signers"))


def test_a_changed_message_breaks_the_signature(repository: Path, tmp_path: Path) -> None:
    create_tag(repository, "policy#candidate#1", "HEAD", '{"tier":"candidate"}', signed=True)
    raw = subprocess.run(["git", "cat-file", "tag", "policy#candidate#1"], cwd=repository, check=True, capture_output=True).stdout
    forged = (
        subprocess.run(
            ["git", "hash-object", "-t", "tag", "-w", "--stdin"],
            cwd=repository,
            check=True,
            capture_output=True,
            input=raw.replace(b'candidate"', b'produktion"'),
        )
        .stdout.decode()
        .strip()
    )
    git(repository, "update-ref", "refs/tags/policy#candidate#1", forged)
    assert signature_fault(repository, "policy#candidate#1", tmp_path / "signers") is not None


def test_a_tag_under_another_name_is_refused(repository: Path) -> None:
    create_tag(repository, "policy#research#1", "HEAD", "{}", signed=True)
    git(repository, "update-ref", "refs/tags/policy#production#2", git(repository, "rev-parse", "refs/tags/policy#research#1"))
    with pytest.raises(GovernanceError, match="another name"):
        read_tag(repository, "policy#production#2")


def test_without_a_key_or_over_an_existing_tag_nothing_is_signed(repository: Path) -> None:
    create_tag(repository, "policy@v1.0.0", "HEAD", "{}", signed=True)
    with pytest.raises(GovernanceError, match="already exists"):
        create_tag(repository, "policy@v1.0.0", "HEAD", "{}", signed=True)
    git(repository, "config", "user.signingkey", "")
    with pytest.raises(GovernanceError, match="no signing key"):
        create_tag(repository, "policy@v1.1.0", "HEAD", "{}", signed=True)


def test_names_count_up_as_gto_counts_them(repository: Path) -> None:
    assert next_version(repository) == "policy@v1.0.0"
    create_tag(repository, "policy@v1.0.0", "HEAD", "{}", signed=False)
    assert next_version(repository) == "policy@v1.1.0"
    assert version_tag(repository, git(repository, "rev-parse", "HEAD")) == "policy@v1.0.0"
    create_tag(repository, next_stage_tag(repository, "research"), "HEAD", "{}", signed=False)
    create_tag(repository, next_stage_tag(repository, "candidate"), "HEAD", "{}", signed=False)
    assert stage_tags(repository) == ["policy#research#1", "policy#candidate#2"]
    assert stage_tags(repository, "candidate") == ["policy#candidate#2"]
    shown = subprocess.run(["gto", "show", "policy", "--repo", str(repository)], check=True, capture_output=True, text=True).stdout
    assert "v1.0.0" in shown
    assert "candidate" in shown
