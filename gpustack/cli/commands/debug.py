"""Gather versions, options, records, events and logs for a bug report, without secrets.

Usage:
  gpustack debug bundle [options] [FILE]
  gpustack debug bundle [options] [FILE] -- START_OPTION...

FILE is gpustack-debug-<date>.tar.gz in the working directory if not given; one that is there is not overwritten. In it
are versions, options with their origins, hardware, metrics, tasks of the server, records, events, explanations, and the
ends of the logs of the daemon, of engines on this machine and of instances that do not run. Passwords, tokens, keys and
the values of environments are taken out; names of machines and models are not. What is in it and how large is told. If
no server answers, it has what this machine tells. Run it as root or the user of the daemon: others cannot read its
files. Options of gpustack start, if they are not in the environment, follow after --.

Options:
  -o, --output=FORM  How to tell what is in it: table, json or yaml (default: table).
  -q, --quiet        The name of the file only.
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gpustack.cli import output, phrase
from gpustack.cli.command_line import read
from gpustack.cli.failure import UsageError
from gpustack.cli.installation import load_options, split_start_options
from gpustack.cli.output import Row
from gpustack.cli.session import data_dir, open_session
from gpustack.cli.terminal import stderr, stdout
from gpustack.errors import GpustackError

if TYPE_CHECKING:
    from gpustack.cli.debug_bundle import DebugBundle
    from gpustack.config.loader import Configuration

_HEADS = ("SIZE", "FILE")


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Write the bundle, and print what is in it."""
    from gpustack.cli import debug_bundle as form

    own, start_argv = split_start_options(argv)
    command_line = read(__doc__, "debug", own)
    command_line.choice("--output", *output.FORMS)  # refused before anything is gathered
    now, aside = datetime.now(UTC), stderr(env)
    folder = f"gpustack-debug-{now:%Y%m%dT%H%M%SZ}"
    target = Path(command_line.text("FILE") or f"{folder}.tar.gz").absolute()
    bundle = form.DebugBundle()
    aside.draw("looking at this machine")
    loaded = _loaded(start_argv, env, bundle)
    place = data_dir(env) if loaded is None else loaded.options.data_dir
    form.gather_machine(bundle, loaded, place, env, now)
    if loaded is not None:
        form.gather_metrics(bundle, loaded)
    aside.draw("asking the server")
    env = {**env, "GPUSTACK_DATA_DIR": str(place)}
    try:
        session = open_session(env)
        bundle.scrubber.learn(session.address.key)
        form.gather_server(bundle, session)
    except GpustackError as error:
        bundle.missing["server"] = str(error)
    aside.clear()
    files = bundle.finished()
    files["README.txt"] = form.read_me(files, now)
    form.pack(files, target, folder, now)
    listed = [{"name": name, "size": size} for name, size in form.sizes(files)]
    document = {
        "file": str(target),
        "size": target.stat().st_size,
        "files": listed,
        "missing": sorted(bundle.missing),
    }
    rows = [Row([phrase.size(one["size"]), str(one["name"])]) for one in listed]
    output.show(command_line, document, lambda: output.draw_table(_HEADS, rows, stdout(env)), name="file")
    if output.is_table(command_line):
        for line in _said(bundle, target):
            aside.say(line)
    return 0


def _loaded(start_argv: Sequence[str], env: Mapping[str, str], bundle: DebugBundle) -> Configuration | None:
    """The options of the daemon; with a fault in them, the fault is what is of interest."""
    # A worker's settings say nothing of a server here, and the address that commands talk to is no worker's.
    of_start = {
        name: text for name, text in env.items() if name != "GPUSTACK_SERVER_URL" or "GPUSTACK_TOKEN" in env
    }
    try:
        return load_options(start_argv, of_start)
    except UsageError as error:
        bundle.missing["options.txt"] = str(error)
        return None


def _said(bundle: DebugBundle, target: Path) -> list[str]:
    lines = [
        f"{name} is not in it: {' '.join(bundle.scrubber.text(why).split())}"
        for name, why in bundle.missing.items()
    ]
    size = phrase.size(target.stat().st_size)
    return [*lines, f"Wrote {target} ({size}). Secrets are taken out; look it over before you share it."]
