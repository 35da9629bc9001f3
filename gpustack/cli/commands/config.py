"""Print every option with its value and where that came from, as start would see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gpustack.cli.failure import UsageError
from gpustack.cli.installation import load_options
from gpustack.cli.terminal import stderr


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print the configuration to stdout; warnings and notes about it go to stderr. ``--help`` raises SystemExit."""
    loaded = load_options(argv, env, command="config")
    from gpustack.config import rendering

    writers: Mapping[str, Callable[[], str]] = {
        "table": lambda: rendering.effective(loaded),
        "yaml": lambda: rendering.yaml_file(loaded),
        "env": lambda: rendering.env_file(loaded),
        "markdown": rendering.markdown,
    }
    form = loaded.own.get("--format") or "table"
    if form not in writers:
        raise UsageError(f"flag --format: must be one of {', '.join(writers)}, not {form!r}")
    for line in (*loaded.warnings, *loaded.notes):
        stderr(env).say(line)
    print(writers[form](), end="")
    return 0
