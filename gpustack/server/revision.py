"""The revisions of models: kept with each change of what users ask for, and brought back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from gpustack.domain.model import SPEC_FIELDS, Model
from gpustack.domain.revision import ModelRevision
from gpustack.errors import NotFound
from gpustack.store import revision_history
from gpustack.store.store import Store
from gpustack.store.transaction import Tx

MOST = 10
"""Revisions of a model that are kept."""


def keep(tx: Tx, before: Model, after: Model, *, by: str, rolled_back_to: int | None = None) -> None:
    """Keep what a model is ``after`` a change by somebody, if users asked for another thing ``before``. One that is new
    comes as both."""
    made = ModelRevision(
        model_id=after.id, number=1, model=after, at=tx.now, changed_by=by, rolled_back_to=rolled_back_to
    )
    if after is before:
        tx.insert(made)
    elif any(getattr(before, name) != getattr(after, name) for name in SPEC_FIELDS):
        tx.add_revision(made, before, MOST)


async def revisions_of(store: Store, model_id: int) -> list[ModelRevision]:
    """All that are kept of a model, the newest first; empty where it has not changed since revisions are kept. Raises
    ``Unavailable``."""
    return await store.query(lambda conn: revision_history.revisions_of(conn, model_id))


def chosen(revisions: list[ModelRevision], model: Model, number: int | None) -> ModelRevision:
    """The revision of that number, or the last one that asks for something else than ``model``. Raises ``NotFound``
    with the numbers there are."""
    for one in revisions:
        if one.number == number or (number is None and changes_to(one, model)):
            return one
    if number is None:
        raise NotFound(f"Model {model.name!r} has no former revision: it has not changed since it is kept")
    known = ", ".join(str(one.number) for one in reversed(revisions))
    there = f"kept are {known}" if known else "none is kept: it has not changed yet"
    raise NotFound(f"Model {model.name!r} has no revision {number}; {there}")


def changes_to(revision: ModelRevision, model: Model) -> Mapping[str, Any]:
    """The fields to set so that ``model`` asks for what it did at that revision."""
    then = revision.model
    if not then.categories and then.source == model.source:
        # Nobody chose them: they are what the header of the files says, once that has been read.
        then = attrs.evolve(then, categories=model.categories)
    return {name: getattr(then, name) for name in SPEC_FIELDS if getattr(then, name) != getattr(model, name)}
