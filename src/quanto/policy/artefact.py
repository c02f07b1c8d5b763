"""The policy artefact: `policy.json` and one safetensors file per member. No pickle, no torch, the same bytes twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load, save

from quanto.core.config import Section, load_section
from quanto.core.digest import digest_bytes, digest_value
from quanto.core.errors import IntegrityError, MissingDataError
from quanto.core.store import read_json, write_bytes, write_json
from quanto.env.action_map import ActionMap
from quanto.policy.network import Architecture, Networks, Sizes, stack
from quanto.policy.observation import Scaler, scaler_from
from quanto.portfolio.constraints import ConstraintConfig

Float32Array = npt.NDArray[np.float32]
Parameters = Mapping[str, Float32Array]

SCHEMA = "policy_v1"
FILE = "policy.json"
# The folder below models/ of the yardstick, a policy too.
YARDSTICK = "yardstick"


class ObservationSpec(Section):
    """What the policy looks at. The version names the assembly: which columns are added, where, and how masked.

    `scaler` is the JSON form of `policy.observation.Scaler`: the ordered columns and their train-window statistics.
    """

    version: Literal["observation_v1"] = "observation_v1"
    feature_set: str
    regime_feature_set: str | None
    symbols: tuple[str, ...] = Field(min_length=1)
    scaler: dict[str, Any]

    @model_validator(mode="after")
    def _readable(self) -> Self:
        scaler_from(self.scaler)
        return self

    def read_scaler(self) -> Scaler:
        """Return the scaler as a value."""
        return scaler_from(self.scaler)


class Shield(Section):
    """A cap on exposure that no network can move: min(1, target_volatility / the volatility column); `none` caps nothing.

    Both in fractions per year. A missing volatility caps at 0.
    """

    kind: Literal["volatility_target", "none"]
    target_volatility: float = Field(gt=0)
    column: str


class Member(Section):
    """One network of the ensemble: its seed, its file and the SHA-256 of the file."""

    seed: int
    file: str
    sha256: str

    @model_validator(mode="after")
    def _beside(self) -> Self:
        if self.file != member_file(self.seed):
            raise ValueError(f"the file of seed {self.seed} is called {member_file(self.seed)}; found {self.file}")
        return self


class PolicySpec(Section):
    """Everything of a policy but the numbers of its networks."""

    schema_version: Literal["policy_v1"] = "policy_v1"
    algorithm: str
    architecture: Architecture
    observation: ObservationSpec
    action_map: ActionMap
    shield: Shield
    constraints: ConstraintConfig
    train_start: str
    train_end: str
    training: dict[str, Any]
    members: tuple[Member, ...] = Field(min_length=1)

    def sizes(self) -> Sizes:
        """Return the sizes that the networks must have."""
        symbols, scaler = len(self.observation.symbols), self.observation.read_scaler()
        return Sizes(symbols, len(scaler.asset_columns), len(scaler.market_columns), self.action_map.size(symbols))


@dataclass(frozen=True)
class Policy:
    """A loaded policy: what policy.json says, its scaler, and the members' networks."""

    spec: PolicySpec
    scaler: Scaler
    networks: Networks

    @property
    def digest(self) -> str:
        """The identity of the policy: of its specification, which holds the digests of the members' weights."""
        return digest_value(self.spec.model_dump(mode="json"))

    def member(self, index: int) -> Policy:
        """Return the policy of one member alone."""
        part = slice(index, index + 1)
        actor, cash = (tuple((w[part], b[part]) for w, b in layers) for layers in (self.networks.actor, self.networks.cash))
        spec = self.spec.model_copy(update={"members": self.spec.members[part]})
        return replace(self, spec=spec, networks=replace(self.networks, actor=actor, cash=cash))

    def without_shield(self) -> Policy:
        """Return the same networks without the shield: the ablation of the evaluation."""
        shield = self.spec.shield.model_copy(update={"kind": "none"})
        return replace(self, spec=self.spec.model_copy(update={"shield": shield}))


def member_file(seed: int) -> str:
    """Return the name of a member's file."""
    return f"policy-{seed}.safetensors"


def pack(parameters: Parameters) -> bytes:
    """Return parameters as safetensors; equal parameters give equal bytes, whatever their order."""
    return bytes(save({name: np.ascontiguousarray(parameters[name], dtype=np.float32) for name in sorted(parameters)}))


def save_policy(folder: Path, spec: Mapping[str, Any], members: Mapping[int, Parameters]) -> Policy:
    """Write a policy and return it as a reader will load it.

    Parameters
    ----------
    spec
        The fields of `PolicySpec` without `members`, JSON-like.
    members
        The parameters of each seed.
    """
    entries = []
    for seed in sorted(members):
        content = pack(members[seed])
        write_bytes(folder / member_file(seed), content)
        entries.append({"seed": seed, "file": member_file(seed), "sha256": digest_bytes(content)})
    checked = load_section(FILE, {**spec, "members": entries}, PolicySpec)
    write_json(folder / FILE, checked.model_dump(mode="json"))
    return load_policy(folder)


def load_policy(folder: Path) -> Policy:
    """Return the policy of a folder.

    Raises
    ------
    MissingDataError
        If policy.json or a member's file is not there.
    IntegrityError
        If policy.json has another schema, a member's bytes are not those of its digest, or a network does not fit.
    """
    raw = read_json(folder / FILE)
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != SCHEMA:
        raise IntegrityError(f"{folder / FILE} has schema {version!r}, this code reads {SCHEMA!r}; train again or use the older code")
    spec = load_section(FILE, raw, PolicySpec)
    members = [_read_member(folder, member) for member in spec.members]
    return Policy(spec, spec.observation.read_scaler(), stack(spec.architecture, spec.sizes(), members))


def _read_member(folder: Path, member: Member) -> Parameters:
    path = folder / member.file
    if not path.is_file():
        raise MissingDataError(f"{path} of seed {member.seed} does not exist; restore it with `dvc checkout` or train again")
    content = path.read_bytes()
    if digest_bytes(content) != member.sha256:
        raise IntegrityError(f"{path} has SHA-256 {digest_bytes(content)}, policy.json says {member.sha256}; the weights were changed")
    try:
        return dict(load(content))
    except SafetensorError as error:
        raise IntegrityError(f"{path} is no safetensors file: {error}") from error
