"""Queries on the revisions of models: the list of one, the next number, and removal of old ones."""

from __future__ import annotations

from contextlib import suppress

import attrs
import sqlalchemy as sa

from gpustack.domain.model import Model
from gpustack.domain.revision import ModelRevision

from .codec import UNREADABLE, codec
from .table import tables

_TABLE = tables[ModelRevision]


def revisions_of(conn: sa.Connection, model_id: int) -> list[ModelRevision]:
    """All that are kept of a model, the newest first. One that cannot be read is left out."""
    query = sa.select(_TABLE).where(_TABLE.c.model_id == model_id).order_by(_TABLE.c.number.desc())
    found = []
    for row in conn.execute(query):
        with suppress(*UNREADABLE):  # written by a later version, for example
            found.append(codec(ModelRevision).record(dict(row._mapping)))
    return found


def following(conn: sa.Connection, revision: ModelRevision, former: Model) -> list[ModelRevision]:
    """``revision`` with the next number of its model; after one of ``former``, the model before that change, where none
    is kept yet."""
    query = sa.select(sa.func.max(_TABLE.c.number)).where(_TABLE.c.model_id == revision.model_id)
    last = conn.execute(query).scalar_one()
    if last is not None:
        return [attrs.evolve(revision, number=last + 1)]
    first = ModelRevision(model_id=revision.model_id, number=1, model=former)
    return [first, attrs.evolve(revision, number=2)]


def forget_older(conn: sa.Connection, model_id: int, last: int) -> None:
    """Delete those of a model up to the number ``last``."""
    conn.execute(sa.delete(_TABLE).where(_TABLE.c.model_id == model_id, _TABLE.c.number <= last))


def forget_all(conn: sa.Connection, model_id: int) -> None:
    """Delete all of a model."""
    conn.execute(sa.delete(_TABLE).where(_TABLE.c.model_id == model_id))
