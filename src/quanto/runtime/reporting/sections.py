"""The sections of the report, in the order in which a reviewer needs them."""

from __future__ import annotations

from quanto.runtime.git import Git
from quanto.runtime.reporting import evidence, judgement
from quanto.runtime.reporting.files import Files
from quanto.runtime.reporting.parts import Section

JUDGEMENT = (judgement.verdict, judgement.performance, judgement.regimes, judgement.robustness, judgement.seeds, judgement.training)
EVIDENCE = (evidence.data, evidence.features, evidence.shadow, evidence.lineage)


def sections(files: Files) -> tuple[Section, ...]:
    """Return all sections: the verdict first, how to reproduce it last."""
    git = Git(files.revision.workspace)
    commit = files.revision.commit or git.commit_of("HEAD") or "COMMIT"
    clean = files.revision.commit is not None or (commit != "COMMIT" and git.is_clean())
    return (*(make(files) for make in (*JUDGEMENT, *EVIDENCE)), evidence.reproduce(files, commit, clean=clean))
