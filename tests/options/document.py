"""docs/proofs.md, written from the registry: ``python -m tests.options.document > docs/proofs.md``."""

from __future__ import annotations

from tests.options.proof import PROOFS, TO_DO
from tests.options.spelling import BY_NAME

HEAD = """\
# What shows that an option works

<!-- Written by `python -m tests.options.document`. Change tests/options/proof.py, then run it again. -->

Each option of [options.md](options.md) with the test that sets it on a running daemon and sees its effect from
outside. `pytest` fails when an option has no such test, unless it is said to be without effect in this version.

| Option | Shown by |
| --- | --- |
"""


def page() -> str:
    """The text of docs/proofs.md."""
    lines = []
    for name, proof in PROOFS.items():
        option = BY_NAME[name]
        shown = "*without effect in this version*" if proof == TO_DO else f"`{proof}`"
        lines.append(f"| `{option.flag or option.name}` | {shown} |\n")
    return HEAD + "".join(lines)


if __name__ == "__main__":
    print(page(), end="")
