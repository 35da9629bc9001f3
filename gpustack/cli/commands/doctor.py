"""Look for what keeps this machine from working, and say how to mend it.

Usage:
  gpustack doctor [options]
  gpustack doctor [options] -- START_OPTION...

It needs no server. Options of gpustack start, if they are not in the environment, follow after --.

Options:
  -o, --output=FORM  table, json or yaml (default: table).
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpustack.cli import output
from gpustack.cli.check import CheckContext, CheckStatus, run_checks
from gpustack.cli.command_line import read
from gpustack.cli.failure import FAILED
from gpustack.cli.installation import split_start_options
from gpustack.cli.terminal import Terminal, stdout

_STYLES = {CheckStatus.GOOD: "green", CheckStatus.NOTE: "yellow", CheckStatus.FAILED: "red"}


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Carry out every check; 1 when one failed."""
    own, start_argv = split_start_options(argv)
    command_line = read(__doc__, "doctor", own)
    found = run_checks(CheckContext.of(start_argv, env))
    documents = [
        {"check": check, "verdict": one.status.value, "message": one.sentence, "fix": one.fix}
        for check, one in found
    ]
    output.show(command_line, documents, lambda: _told(documents, stdout(env)), name="message")
    return FAILED if any(one.status is CheckStatus.FAILED for _, one in found) else 0


def _told(documents: Sequence[Mapping[str, str]], terminal: Terminal) -> str:
    width = max(len(one["check"]) for one in documents)
    lines = []
    for one in documents:
        verdict = terminal.style(f"{one['verdict']:<6}", _STYLES[CheckStatus(one["verdict"])])
        lines.append(f"{verdict}  {one['check']:<{width}}  {one['message']}")
        if one["fix"]:
            lines.append(f"{'':<{width + 10}}→ {one['fix']}")
    bad = [one["check"] for one in documents if one["verdict"] == CheckStatus.FAILED]
    told = f"{len(bad)} failed, told above: {', '.join(dict.fromkeys(bad))}" if bad else "Nothing is wrong."
    lines.append(terminal.style(told, _STYLES[CheckStatus.FAILED if bad else CheckStatus.GOOD]))
    return "\n".join(lines)
