"""Writes the module with the flags of an engine's newest version from its help text.

``vllm serve --help=all | python -m tests.engines.flag_module vLLM 0.32.0 > gpustack/engines/vllm_flags.py``
"""

from __future__ import annotations

import sys
import textwrap

from gpustack.engines.flag_list import flags_of

_MODULE = '''"""The flags of {program}, as of the newest version that this one of GPUStack knows.

Made by ``tests/engines/flag_module.py`` from the program's help text; do not edit it.
"""

from __future__ import annotations

from .flag_list import FlagList

NEWEST = FlagList(
    version="{version}",
    names=frozenset(
        """
{names}
        """.split()  # noqa: SIM905 - a list of hundreds of quoted words reads worse
    ),
)
'''


def module_of(program: str, version: str, help_text: str) -> str:
    """The source of the module. Raises ValueError for a text that describes no flags."""
    flags = flags_of(help_text)
    if not flags:
        raise ValueError("this help text describes no flags")
    names = textwrap.fill(
        " ".join(sorted(flags)),
        108,
        initial_indent=" " * 8,
        subsequent_indent=" " * 8,
        break_on_hyphens=False,
    )
    return _MODULE.format(program=program, version=version, names=names)


if __name__ == "__main__":
    sys.stdout.write(module_of(sys.argv[1], sys.argv[2], sys.stdin.read()))
