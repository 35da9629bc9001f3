"""The vocabulary of the tiny chat model: every byte, the pieces of its one reply, and ChatML's marks."""

from __future__ import annotations

import re
from dataclasses import dataclass

START_OF_TEXT = "<|endoftext|>"
START_OF_TURN = "<|im_start|>"
END_OF_TURN = "<|im_end|>"
CONTROL = (START_OF_TEXT, START_OF_TURN, END_OF_TURN)
PADDING = "<|unused_"


def _printable_bytes() -> dict[int, str]:
    """The customary byte-level BPE spelling: a byte that prints stands for itself, others move up by 256."""
    visible = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(256, 512))
    return {byte: chr(byte if byte in visible else next(hidden)) for byte in range(256)}


BYTES = _printable_bytes()


def spell(text: str) -> str:
    """``text`` as a byte-level BPE vocabulary writes it."""
    return "".join(BYTES[byte] for byte in text.encode())


@dataclass(frozen=True)
class Vocabulary:
    """``reply`` holds the token ids that, said one after the other, are the reply."""

    tokens: tuple[str, ...]
    merges: tuple[str, ...]
    reply: tuple[int, ...]

    def id(self, token: str) -> int:
        return self.tokens.index(token)


def vocabulary(reply: str, size: int) -> Vocabulary:
    """Make the vocabulary in which ``reply`` has one token a word.

    No merge leads to those tokens: the model can say them but no prompt can hold them, so a prompt costs
    one token a byte and cannot throw the model off its sentence.

    Raises ValueError when the reply is empty, holds a line break or does not fit in ``size`` tokens.
    """
    if not reply.strip() or "\n" in reply:
        raise ValueError("the reply must be one non-empty line")
    tokens = [BYTES[byte] for byte in range(256)]
    tokens.append("th")  # llama.cpp wants a list of merges, and the writer wants it not empty
    said = []
    for piece in _distinct_pieces(reply):
        spelled = spell(piece)
        if spelled not in tokens:
            tokens.append(spelled)
        said.append(tokens.index(spelled))
    tokens += CONTROL
    if len(tokens) > size:
        raise ValueError(f"the reply needs {len(tokens)} tokens, the model has {size}; say less")
    tokens += [f"{PADDING}{i}|>" for i in range(size - len(tokens))]
    return Vocabulary(tokens=tuple(tokens), merges=("t h",), reply=tuple(said))


def _distinct_pieces(reply: str) -> list[str]:
    """Cut the reply into words, joining neighbours where a word would come a second time.

    The next word is looked up by the present one, so no piece may be there twice.
    """
    pieces: list[str] = []
    pending = ""
    for word in re.findall(r"\s*[^\W_]+|\s*.", reply):
        pending += word
        if pending not in pieces:
            pieces.append(pending)
            pending = ""
    while pending:
        pending = pieces.pop() + pending
        if pending not in pieces:
            pieces.append(pending)
            pending = ""
    return pieces
