"""The committed files of a revision, or of the workspace, read without checking anything out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from quanto.core.digest import JsonValue
from quanto.core.errors import DataError, MissingDataError
from quanto.core.manifest import Manifest, manifest_from
from quanto.runtime.git import Git
from quanto.runtime.identity import experiment_id
from quanto.runtime.pipeline import STAGES, manifest_path


@dataclass(frozen=True)
class Revision:
    """A tree of files: of a commit, or of the workspace where `commit` is None."""

    workspace: Path
    commit: str | None
    label: str

    def exists(self, path: str) -> bool:
        """Whether the tree has this file."""
        if self.commit is None:
            return (self.workspace / path).is_file()
        return Git(self.workspace).has_file(self.commit, path)

    def read(self, path: str) -> bytes:
        """Return the bytes of a file that git tracks (in the workspace: that exists).

        Raises
        ------
        MissingDataError
            If the tree has no such file.
        """
        if not self.exists(path):
            raise MissingDataError(f"{self.label} has no {path}; was the pipeline run and committed there?")
        if self.commit is None:
            return (self.workspace / path).read_bytes()
        return Git(self.workspace).file(self.commit, path)

    def read_json(self, path: str) -> JsonValue:
        """Return the value of a JSON file; raises MissingDataError or DataError."""
        try:
            value: JsonValue = json.loads(self.read(path))
        except ValueError as error:
            raise DataError(f"{path} of {self.label} is no JSON: {error}") from error
        return value

    def read_yaml(self, path: str) -> dict[str, object]:
        """Return the mapping of a YAML file; raises MissingDataError or DataError."""
        try:
            value = yaml.safe_load(self.read(path))
        except yaml.YAMLError as error:
            raise DataError(f"{path} of {self.label} is no YAML: {error}") from error
        if not isinstance(value, dict):
            raise DataError(f"{path} of {self.label} is no YAML mapping")
        return value

    def open_tracked(self, path: str) -> bytes:
        """Return the bytes of a DVC output; raises MissingDataError as `read_tracked`."""
        return self.read_tracked((path,))[path]

    def read_tracked(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Return the bytes of files of DVC outputs, from the workspace or through DVC's cache and remotes.

        Raises
        ------
        MissingDataError
            If one is in neither; says how to get it.
        """
        if self.commit is None:
            missing = [path for path in paths if not (self.workspace / path).is_file()]
            if missing:
                raise MissingDataError(f"the workspace has no {missing[0]}; run `dvc repro` or `dvc checkout`")
            return {path: (self.workspace / path).read_bytes() for path in paths}
        from dvc.api import DVCFileSystem  # noqa: PLC0415  # a second of import that most commands do not need
        from dvc.exceptions import DvcException  # noqa: PLC0415  # as above

        try:
            files = DVCFileSystem(str(self.workspace), rev=self.commit)
            return {path: files.cat_file(path) for path in paths}
        except (DvcException, OSError) as error:
            raise MissingDataError(f"{path_of(error, paths)} of {self.label} is in no cache or remote at hand; try `dvc fetch`") from error

    def manifests(self) -> dict[str, Manifest]:
        """Return the manifests that the tree has, by stage."""
        return {stage: manifest_from(self.read_json(manifest_path(stage))) for stage in STAGES if self.exists(manifest_path(stage))}

    def experiment_id(self) -> str:
        """Return the experiment id; raises MissingDataError where the pipeline has not run to eval."""
        return experiment_id(self.manifests())


def path_of(error: BaseException, paths: Sequence[str]) -> str:
    """Return the path that an error speaks of, or the first one where it names none."""
    text = str(error)
    return next((path for path in paths if path in text), paths[0] if paths else text)
