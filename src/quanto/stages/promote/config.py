"""The section of the promote stage."""

from __future__ import annotations

from pydantic import Field

from quanto.core.config import Section
from quanto.execution.limits import RiskPolicy


class PromoteConfig(Section):
    """What the record cannot take from the evidence: the purpose of the model card, and the account's risk policy."""

    purpose: str = Field(min_length=1)
    risk: RiskPolicy
