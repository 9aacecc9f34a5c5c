"""A part of search.yml: what all of them have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Frozen, and no key passes unread."""

    model_config = ConfigDict(extra="forbid", frozen=True)
