"""A model revision: what a deployment was like after one of its changes, so that it can be brought back."""

from __future__ import annotations

from datetime import datetime

import attrs

from .model import Model
from .record import Record, stored


@stored("model_revisions", unique=(("model_id", "number"),), in_memory=False)
@attrs.frozen(kw_only=True)
class ModelRevision(Record):
    """The deployment ``model`` after change ``number`` of it, counted from 1. The newest is how it is now."""

    model_id: int
    number: int
    model: Model
    at: datetime | None = None
    """When it was changed; ``None`` where that was before revisions were kept."""
    changed_by: str = ""
    """The name of the account; empty where that is not known."""
    rolled_back_to: int | None = None
    """The number of the revision that was brought back by this change."""
