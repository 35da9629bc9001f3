"""Finds records of a snapshot by a unique field, without reading all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import attrs

from gpustack.domain.record import Record

R = TypeVar("R", bound=Record)


@attrs.define(eq=False)
class FieldIndex(Generic[R]):
    """An index by one field of the table that it was last used with.

    A table of a snapshot is immutable, and the next snapshot has the same object unless the table was written: the
    index is valid as long as the table is the same object.
    """

    field: str
    _indexed: tuple[Mapping[int, R], dict[Any, R]] | None = None

    def find(self, table: Mapping[int, R], value: object) -> R | None:
        """The record whose field is ``value``."""
        indexed = self._indexed
        if indexed is None or indexed[0] is not table:
            indexed = (table, {getattr(record, self.field): record for record in table.values()})
            self._indexed = indexed
        return indexed[1].get(value)
