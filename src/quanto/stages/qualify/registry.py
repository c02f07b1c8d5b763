"""The gates, in the order of the report: a closed table."""

from __future__ import annotations

from quanto.core.registry import Registry
from quanto.stages.qualify.edge import EDGE_GATES
from quanto.stages.qualify.gate import Gate
from quanto.stages.qualify.hard import HARD_GATES
from quanto.stages.qualify.inferiority import INFERIORITY_GATES
from quanto.stages.qualify.regime import REGIME_GATES

GATES: Registry[Gate] = Registry("gate", *HARD_GATES, *REGIME_GATES, *INFERIORITY_GATES, *EDGE_GATES)
