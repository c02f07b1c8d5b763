"""Verbs of governance: the ledger, promotion, revocation, verification."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from quanto.cli.command import Command, Result, workspace


def ledger(options: argparse.Namespace) -> Result:
    """Sync, seal or check the trial ledger."""
    from quanto.runtime import ledger as book

    folder = workspace(options)
    if options.action == "check":
        faults = book.ledger_faults(folder, _tracked_trials())
        lines = tuple(faults) or (f"the ledger holds {len(book.read_ledger())} records; nothing is missing",)
        return Result(lines, {"faults": faults}, exit_code=1 if faults else 0)
    synced = book.seal(folder) if options.action == "seal" else book.sync(folder)
    lines = (f"{len(synced.appended)} trials appended; {synced.records} records, head {synced.head[:12]}",)
    if options.action == "seal":
        lines += (f"{book.SNAPSHOT} written; `dvc repro` lets qualify count it, then commit",)
    return Result(lines, asdict(synced))


def promote_experiment(options: argparse.Namespace) -> Result:
    """Promote an experiment to a tier by a signed tag, if every rule is kept."""
    from quanto.runtime.after import mirror_line
    from quanto.runtime.experiments import experiment_refs, find_revision
    from quanto.runtime.git import Git
    from quanto.runtime.promotion import promote
    from quanto.runtime.revisions import Revision

    folder = workspace(options)
    git = Git(folder)
    revision = find_revision(folder, options.experiment_id)
    if revision.commit is None and git.is_clean():
        revision = Revision(folder, git.commit_of("HEAD"), "HEAD")  # a clean workspace is its commit
    lines: list[str] = []
    if revision.commit in experiment_refs(folder).values() and not git.text("branch", "--contains", str(revision.commit)):
        branch = f"experiment/{revision.label}"
        git.run("branch", branch, str(revision.commit))
        lines.append(f"branch {branch} keeps the DVC experiment's commit")
    done = promote(revision, options.tier, options.reason, signed=not options.unsigned)
    lines.append(f"{done.tag} ({done.version}) {'created' if done.created else 'stands already; nothing changed'}")
    lines.append(f"push it with `git push origin {done.tag} {done.version}`; anyone checks it with `quanto verify {done.tag}`")
    if done.created and options.tier == "production":
        lines.append("the sealed block was opened and is spent: commit reports/promotion/sealed/, so that every clone knows")
    lines.append(mirror_line(folder))
    return Result(tuple(lines), {"tag": done.tag, "version": done.version, "created": done.created, "statement": dict(done.statement)})


def revoke(options: argparse.Namespace) -> Result:
    """Revoke a promotion by a further signed tag."""
    from quanto.runtime.after import mirror_line
    from quanto.runtime.promotion import revoke as make

    folder = workspace(options)
    name = make(folder, options.tag, options.reason, signed=not options.unsigned)
    lines = (f"{name} revokes {options.tag}; push it with `git push origin '{name}'`", mirror_line(folder))
    return Result(lines, {"tag": name, "revokes": options.tag})


def verify(options: argparse.Namespace) -> Result:
    """Check every link from a tag or revision down to the vendors' bytes."""
    from quanto.runtime.promotion import verify as check

    checks = check(workspace(options), options.name, Path(options.signers) if options.signers else None)
    broken = [item for item in checks if not item.ok]
    lines: list[str] = []
    group = ""
    for item in checks:
        top, _, rest = item.link.partition("/")
        if top != group:
            group = top
            lines.append(top)
        mark = "ok    " if item.ok else "BROKEN"
        lines.append(f"  {mark} {rest or top}: {item.detail}" + (f"  <- {item.fault}" if item.fault else ""))
    lines.append(f"{len(broken)} of {len(checks)} links are broken" if broken else f"all {len(checks)} links hold")
    if options.rebuild and not broken:
        from quanto.runtime.rebuild import rebuild

        rebuilt = rebuild(workspace(options), options.name)
        lines += [f"  {stage}: {outcome}" for stage, outcome in rebuilt.items()]
        changed = any(outcome != "reproduced" for outcome in rebuilt.values())
        return Result(tuple(lines), {"checks": [asdict(item) for item in checks], "rebuild": rebuilt}, exit_code=int(changed))
    return Result(tuple(lines), {"checks": [asdict(item) for item in checks]}, exit_code=int(bool(broken)))


def _tracked_trials() -> list[str]:
    from quanto.runtime.tracking import tracked_trials

    return tracked_trials()


def _ledger_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("sync", "seal", "check"), help="append what is found; write the committed snapshot; only look")


def _promote_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--experiment-id", required=True, help="id or prefix, tag, branch, commit, DVC experiment, or `workspace`")
    parser.add_argument("--tier", required=True, choices=("research", "candidate", "production"))
    parser.add_argument("--reason", required=True, help="why; it stands in the tag for ever")
    parser.add_argument("--unsigned", action="store_true", help="do not sign; recorded, and refused for production")


def _revoke_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tag", help="the promotion tag, e.g. policy#candidate#2")
    parser.add_argument("--reason", required=True)
    parser.add_argument("--unsigned", action="store_true")


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a promotion tag, a branch or a commit")
    parser.add_argument("--signers", help="git's allowed-signers file (default: conf/governance/allowed_signers)")
    parser.add_argument("--rebuild", action="store_true", help="also run the pipeline again in a temporary clone and compare")


COMMANDS = (
    Command(
        "promote-experiment",
        "workflow",
        "promote an experiment to a tier by a signed tag",
        promote_experiment,
        ('quanto promote-experiment --experiment-id 3f9c2a --tier candidate --reason "regression + regime gates passed"',),
        _promote_arguments,
    ),
    Command(
        "verify",
        "governance",
        "check the chain from a tag down to the vendors' bytes",
        verify,
        ("quanto verify 'policy#candidate#1'", "quanto verify HEAD --rebuild"),
        _verify_arguments,
    ),
    Command(
        "revoke",
        "governance",
        "revoke a promotion",
        revoke,
        ("quanto revoke 'policy#candidate#1' --reason \"data error\"",),
        _revoke_arguments,
    ),
    Command(
        "ledger",
        "governance",
        "sync, seal or check the ledger of all trials",
        ledger,
        ("quanto ledger sync", "quanto ledger seal", "quanto ledger check"),
        _ledger_arguments,
    ),
)
