"""The chain from a tag down to the vendors' bytes, each link checked by content, offline.

1. the tag's signature, its statement, and the statement's subjects;
2. every file of every stage against its manifest, and against dvc.lock;
3. producers joined to consumers: what a stage read is what the stage before wrote;
4. configuration and source code of each stage against the commit;
5. the ledger's chain and head, and revocations.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from quanto.core.chain import head, read_chain
from quanto.core.digest import digest_bytes, digest_value
from quanto.core.errors import DataError, MissingDataError, QuantoError
from quanto.core.manifest import Manifest, manifest_from, outputs_digest
from quanto.runtime.git import Git
from quanto.runtime.ledger import SNAPSHOT
from quanto.runtime.pipeline import STAGES, Declared, declared_in, manifest_path
from quanto.runtime.revisions import Revision

HELD, ATTESTED = "held", "attested only"


@dataclass(frozen=True)
class Check:
    """One link of the chain: where it stands in the tree, what it says, and the fault if it is broken."""

    link: str
    detail: str
    fault: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the link holds."""
        return self.fault is None


def verify_files(revision: Revision) -> Iterator[Check]:
    """Yield a check for every stage and file of a committed revision, from shadow up to the vendors' payloads."""
    try:
        lock, graph = (_stages(revision, name) for name in ("dvc.lock", "dvc.yaml"))
        params = revision.read_yaml("params.yaml")
    except QuantoError as error:
        yield Check("graph", "dvc.lock, dvc.yaml and params.yaml", str(error))
        return
    manifests: dict[str, Manifest] = {}
    for stage in reversed(STAGES):
        try:
            manifests[stage] = manifest_from(revision.read_json(manifest_path(stage)))
        except QuantoError as error:
            yield Check(f"{stage}/manifest", manifest_path(stage), str(error))
    for stage in reversed(STAGES):
        if stage in manifests and stage in lock:
            yield from _verify_stage(revision, declared_in(graph, stage), manifests, lock[stage], params)
        elif stage not in lock:
            yield Check(f"{stage}/dvc.lock", "entry", "dvc.lock has no entry: the stage was not run at this commit")


def verify_ledger(revision: Revision, expected_head: str | None) -> Check:
    """Return the check of the committed ledger snapshot: its chain, and its head where a statement names one."""
    try:
        found = head(read_chain(revision.read(SNAPSHOT), SNAPSHOT))
    except QuantoError as error:
        return Check("ledger", SNAPSHOT, str(error))
    if expected_head is not None and found != expected_head:
        return Check("ledger", SNAPSHOT, f"the snapshot ends with {found[:12]}, the statement says {expected_head[:12]}")
    return Check("ledger", f"{SNAPSHOT} ends with {found[:12]}")


def _stages(revision: Revision, name: str) -> Mapping[str, Any]:
    try:
        # DVC writes YAML 1.2, in which 1e-05 is a number; PyYAML reads 1.1, in which it is text.
        stages = YAML(typ="safe", pure=True).load(revision.read(name))["stages"]
    except (YAMLError, TypeError, KeyError) as error:
        raise DataError(f"{name} of {revision.label} is no stage graph: {error}") from error
    if not isinstance(stages, dict):
        raise DataError(f"{name} of {revision.label} has no stages")
    return stages


def _verify_stage(
    revision: Revision, plan: Declared, manifests: Mapping[str, Manifest], lock: Mapping[str, Any], params: Mapping[str, object]
) -> Iterator[Check]:
    stage, manifest = plan.stage, manifests[plan.stage]
    yield _verify_config(stage, manifest, lock, params)
    yield from _verify_sources(revision, plan, manifest, lock)
    yield from _verify_inputs(revision, plan, manifests, lock)
    locked = {item["path"]: item for item in lock.get("outs", [])}
    for output in (*plan.outputs, plan.manifest):
        yield _verify_output(revision, output, manifest if output != plan.manifest else None, locked.get(output), plan)


def _verify_config(stage: str, manifest: Manifest, lock: Mapping[str, Any], params: Mapping[str, object]) -> Check:
    name, section = f"{stage}/configuration", params.get(stage)
    if lock.get("params", {}).get("params.yaml", {}).get(stage) != section:
        return Check(name, "params.yaml", "dvc.lock was made with another section than params.yaml has")
    if manifest.config != json.loads(json.dumps(section, default=str)):
        return Check(name, "params.yaml", "the manifest was made with another section than params.yaml has")
    return Check(name, f"section {stage} ({digest_value(manifest.config)[:12]})")


def _verify_sources(revision: Revision, plan: Declared, manifest: Manifest, lock: Mapping[str, Any]) -> Iterator[Check]:
    locked = {item["path"]: item for item in lock.get("deps", [])}
    for source in plan.sources:
        files = tree_content(revision, source)
        found = content_digest(files)
        fault = None
        if manifest.sources.get(source) != found:
            fault = "the commit holds other code than the manifest says the stage ran"
        elif locked.get(source, {}).get("md5") != content_md5(files):
            fault = "the commit holds other code than dvc.lock says"
        yield Check(f"{plan.stage}/source", f"{source} ({found[:12]})", fault)


def _verify_inputs(revision: Revision, plan: Declared, manifests: Mapping[str, Manifest], lock: Mapping[str, Any]) -> Iterator[Check]:
    locked = {item["path"]: item for item in lock.get("deps", [])}
    for name in plan.inputs:
        read = manifests[plan.stage].inputs.get(name)
        producer = next((item for item in manifests.values() if _produces(item, name)), None)
        if producer is not None:
            fault = None if read == outputs_digest(producer, name) else f"{plan.stage} read other bytes than {producer.stage} wrote"
            yield Check(f"{plan.stage}/input", f"{name} from {producer.stage}", fault)
            continue
        files = tree_content(revision, name)
        fault = None if files and read == content_digest(files) else "the commit holds other bytes than the stage read"
        if fault is None and locked.get(name, {}).get("md5") != content_md5(files):
            fault = "the commit holds other bytes than dvc.lock says"
        yield Check(f"{plan.stage}/input", f"{name} from git", fault)


def _produces(manifest: Manifest, name: str) -> bool:
    return any(file == name or file.startswith(f"{name}/") for file in manifest.outputs)


def _verify_output(revision: Revision, output: str, manifest: Manifest | None, locked: Mapping[str, Any] | None, plan: Declared) -> Check:
    name = f"{plan.stage}/output"
    if locked is None:
        return Check(name, output, "dvc.lock does not know this output")
    try:
        files = output_content(revision, output, tuple(_expected(manifest, output)) if manifest else (output,))
    except MissingDataError as error:
        if output in plan.private:
            return Check(name, f"{output}: {ATTESTED}")
        return Check(name, output, str(error))
    if manifest is not None:
        expected = {file: item.sha256 for file, item in _expected(manifest, output).items()}
        wrong = sorted(file for file in {*expected, *files} if expected.get(file) != _sha(files.get(file)))
        if wrong:
            return Check(name, output, f"{wrong[0]} is not the file that the manifest names ({len(wrong)} of {len(expected)} differ)")
    relative = {("" if file == output else file.removeprefix(f"{output}/")): body for file, body in files.items()}
    if locked.get("md5") != content_md5(relative):
        return Check(name, output, "the bytes are not those that dvc.lock names")
    return Check(name, f"{output}: {len(files)} files, {HELD}")


def _expected(manifest: Manifest, output: str) -> dict[str, Any]:
    return {file: item for file, item in manifest.outputs.items() if file == output or file.startswith(f"{output}/")}


def _sha(body: bytes | None) -> str | None:
    return None if body is None else digest_bytes(body)


def output_content(revision: Revision, output: str, files: tuple[str, ...]) -> dict[str, bytes]:
    """Return the bytes of an output's files, from git where it is committed, else from DVC's cache or remotes."""
    if revision.commit is not None and Git(revision.workspace).has_file(revision.commit, output):
        return {name: revision.read(name) for name in files}
    return revision.read_tracked(files)


def tree_content(revision: Revision, path: str) -> dict[str, bytes]:
    """Return the committed files at or below a path, by name relative to it ("" for the file itself)."""
    git = Git(revision.workspace)
    names = git.text("ls-tree", "-r", "-z", "--name-only", str(revision.commit), "--", path).split("\0")
    names = [name for name in names if name]
    return {("" if name == path else name.removeprefix(f"{path}/")): git.file(str(revision.commit), name) for name in names}


def content_digest(files: Mapping[str, bytes]) -> str:
    """Return what `core.digest.digest_tree` gives for a file ("" is its name) or folder of this content."""
    if set(files) == {""}:
        return digest_bytes(files[""])
    return digest_value({name: digest_bytes(body) for name, body in files.items()})


def content_md5(files: Mapping[str, bytes]) -> str:
    """Return the MD5 by which DVC 3 names a file ("" is its name), or a folder (its sorted listing, suffix .dir)."""
    sums = {name: hashlib.md5(body, usedforsecurity=False).hexdigest() for name, body in files.items()}
    if set(files) == {""}:
        return sums[""]
    listing = [{"md5": sums[name], "relpath": name} for name in sorted(sums, key=lambda item: tuple(item.split("/")))]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"
