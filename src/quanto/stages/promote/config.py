"""The section of the promote stage."""

from __future__ import annotations

from pydantic import Field

from quanto.core.config import Section


class PromoteConfig(Section):
    """What the record cannot take from the evidence: the purpose that the model card states."""

    purpose: str = Field(min_length=1)
