"""``gpustack config``: what the options are, and where each came from."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from gpustack.config.loader import load
from gpustack.config.origin import ConfigError


def config_command(argv: list[str], env: Mapping[str, str]) -> int:
    """Run ``gpustack config *argv`` and return its exit status; ``--help`` raises SystemExit.

    The output goes to stdout; warnings, notes and everything wrong go to stderr.
    """
    try:
        loaded = load(argv, env, platform=sys.platform, cwd=Path.cwd(), command="config")
    except ConfigError as error:
        print(error, file=sys.stderr)
        return error.exit_code

    from gpustack.config import rendering

    writers = {
        "table": lambda: rendering.effective(loaded),
        "yaml": lambda: rendering.yaml_file(loaded),
        "env": lambda: rendering.env_file(loaded),
        "markdown": lambda: rendering.markdown(),
    }
    form = loaded.own.get("--format") or "table"
    if form not in writers:
        print(f"flag --format: must be one of {', '.join(writers)}, not {form!r}", file=sys.stderr)
        return ConfigError.exit_code
    for line in (*loaded.warnings, *loaded.notes):
        print(line, file=sys.stderr)
    print(writers[form](), end="")
    return 0
