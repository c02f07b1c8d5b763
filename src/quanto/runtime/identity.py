"""What an experiment is: one digest over what determines its evaluation, computed from the stages' manifests."""

from __future__ import annotations

from collections.abc import Mapping

from quanto.core.digest import digest_value
from quanto.core.errors import MissingDataError
from quanto.core.manifest import Manifest, outputs_digest

# The stages whose configuration decides the evaluation, and those whose code does (ingest's result is its data).
CONFIGURED = ("ingest", "canonical", "features", "train", "eval")
CODED = ("canonical", "features", "train", "eval")
CANONICAL_DATA = "data/canonical"


def experiment_id(manifests: Mapping[str, Manifest]) -> str:
    """Return the experiment's id: 64 hexadecimal digits.

    It covers the resolved configuration of ingest to eval, the content of the canonical data, and the source
    dependencies of canonical to eval with the pinned packages. Names, notes and `runtime` are no part of it; a
    comment in the code makes a new id.

    Raises
    ------
    MissingDataError
        If a manifest is missing; names all that are.
    """
    missing = [stage for stage in CONFIGURED if stage not in manifests]
    if missing:
        raise MissingDataError(f"there is no manifest of {', '.join(missing)}, and so no experiment id; run dvc repro")
    return digest_value(
        {
            "config": {stage: manifests[stage].config for stage in CONFIGURED},
            "canonical": outputs_digest(manifests["canonical"], CANONICAL_DATA),
            "sources": {stage: manifests[stage].sources for stage in CODED},
        }
    )
