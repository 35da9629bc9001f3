"""Values on the command lines of the programs."""

from __future__ import annotations

import argparse


def device_of(text: str) -> tuple[str, int]:
    """``cuda:1`` → (``cuda``, 1). Raises ``ArgumentTypeError`` with a sentence."""
    kind, _, index = text.partition(":")
    if kind not in ("cpu", "cuda") or (index and not (index.isascii() and index.isdigit())):
        raise argparse.ArgumentTypeError(f"must be cpu, cuda or cuda:INDEX, not {text!r}")
    return kind, int(index or 0)


def at_least_one(text: str) -> int:
    """A whole number of at least 1. Raises ``ArgumentTypeError`` with a sentence, ``ValueError`` for no number."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
