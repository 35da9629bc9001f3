"""Which known word somebody meant who wrote another one."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is the fewest slips of the hand away, or ``None`` when all are too far.

    Of several, one as long as what was written: a wrong letter is likelier than a missing one, and ``rum`` is not
    to be understood as ``rm``.
    """
    most = 1 if len(word) <= 4 else 2 if len(word) <= 9 else 3
    rated = [(slips(word, one), abs(len(word) - len(one)), one) for one in known]
    best = min(rated, default=None)
    return best[2] if best is not None and best[0] <= most else None


def slips(one: str, other: str) -> int:
    """How many letters must be changed, added, left out, or swapped with the next one, to get from one to the other."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        this = [row]
        for column, wanted in enumerate(other, 1):
            cost = min(last[column] + 1, this[-1] + 1, last[column - 1] + (letter != wanted))
            swapped = row > 1 and column > 1 and letter == other[column - 2] and one[row - 2] == wanted
            this.append(min(cost, before[column - 2] + 1) if swapped else cost)
        before, last = last, this
    return last[-1]
