"""Commands as people call them: in a script, and at a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from tests.daemon import WITHIN, Daemon

SENTENCE = "Hello! I am a tiny model served by this cluster."


@attrs.frozen
class Shell:
    """Runs ``gpustack`` on the machine of a daemon."""

    daemon: Daemon
    cwd: Path

    def env(self, **more: str) -> dict[str, str]:
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("GPUSTACK_", "NO_COLOR"))
        }
        root = str(Path(__file__).parents[2])
        own = {"GPUSTACK_DATA_DIR": str(self.daemon.data_dir), "XDG_STATE_HOME": str(self.cwd / "state")}
        own["XDG_CONFIG_HOME"] = str(self.cwd / "config")
        return {**clean, **own, "PYTHONPATH": root, **more}

    def __call__(self, *argv: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gpustack", *argv],
            env=self.env(**env),
            cwd=self.cwd,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )

    def good(self, *argv: str, stdin: str = "") -> str:
        ran = self(*argv, stdin=stdin)
        assert ran.returncode == 0, f"{ran.stderr}\n{self.daemon.log[-4000:]}"
        return ran.stdout

    def bad(self, *argv: str, **env: str) -> str:
        """The one line of a failure."""
        ran = self(*argv, **env)
        assert (ran.returncode, ran.stdout) == (1, "")
        assert ran.stderr.count("\n") == 1, ran.stderr
        return ran.stderr


def at_terminal(
    shell: Shell,
    argv: Sequence[str],
    steps: Sequence[tuple[str, bytes]],
    answers: Path | None = None,
    **env: str,
) -> tuple[int, str]:
    """Run a command at a terminal; once a text has appeared (after the last one), the keys beside it are typed.

    What it writes to stdout goes to ``answers``, if given.
    """
    master, slave = pty.openpty()
    out = slave if answers is None else os.open(answers, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    process = subprocess.Popen(
        [sys.executable, "-m", "gpustack", *argv],
        env=shell.env(**{"TERM": "xterm", **env}),
        cwd=shell.cwd,
        stdin=slave,
        stdout=out,
        stderr=slave,
        start_new_session=True,
        preexec_fn=_controlling(slave),
    )
    for descriptor in {slave, out}:
        os.close(descriptor)
    shown, seen, waiting, end = "", 0, list(steps), time.monotonic() + WITHIN
    try:
        while time.monotonic() < end:
            if not select.select([master], [], [], 0.5)[0]:
                continue
            try:
                shown += os.read(master, 65536).decode(errors="replace")
            except OSError:  # the other side is closed: that is how a terminal ends
                break
            while waiting and (at := shown.find(waiting[0][0], seen)) >= 0:
                seen = at + len(waiting[0][0])
                # Nobody types in the very instant of a prompt, in which a Ctrl-C is heard with the next key only.
                time.sleep(0.1)
                os.write(master, waiting.pop(0)[1])
        assert time.monotonic() < end, f"it does not end; still to come: {waiting}\n{shown}"
        return process.wait(WITHIN), shown
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait(WITHIN)
        os.close(master)


def _controlling(slave: int) -> Callable[[], None]:
    """Makes the terminal the one whose Ctrl-C the command hears."""
    import fcntl
    import termios

    return lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
