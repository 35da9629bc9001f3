"""Notifies systemd (sd_notify) that the daemon is ready, stopping or alive, and of its main process."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from typing import Any

import attrs
import trio

from .ticker import ticks

log = logging.getLogger(__name__)


@attrs.define(eq=False)
class Notifier:
    """Sends states to the socket of systemd, or nowhere if there is none. Never waits, never raises."""

    _address: str | None = None
    _complained: bool = attrs.field(default=False, init=False, repr=False)

    def ready(self, status: str | None = None) -> None:
        self._send("READY=1", *_status(status))

    def status(self, text: str) -> None:
        self._send(*_status(text))

    def stopping(self, status: str | None = None) -> None:
        self._send("STOPPING=1", *_status(status))

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def main_pid(self, pid: int) -> None:
        """Name ``pid`` as the main process from now on. systemd ignores what others send, so nothing is sent
        afterwards."""
        self._send(f"MAINPID={pid}")
        self._address = None

    def extend_timeout(self, seconds: float) -> None:
        """Allow ``seconds`` from now for the start or stop under way."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), address)
        except OSError as error:  # systemd gone or its queue full: no reason for the daemon to fail
            if not self._complained:
                self._complained = True
                log.warning("Cannot notify systemd: %s", error)


def _status(text: str | None) -> list[str]:
    # A line break would begin a new field.
    return [] if text is None else ["STATUS=" + " ".join(text.split())]


def notifier(environ: Mapping[str, str]) -> Notifier:
    """The notifier that systemd asked for in ``NOTIFY_SOCKET``."""
    address = environ.get("NOTIFY_SOCKET")
    return Notifier(address if address and address[0] in "/@" else None)


def watchdog_period(environ: Mapping[str, str], pid: int | None = None) -> float | None:
    """Seconds within which systemd expects a sign of life from process ``pid`` (default: this one), or None."""
    if environ.get("WATCHDOG_PID", str(pid or os.getpid())) != str(pid or os.getpid()):
        return None
    micros = environ.get("WATCHDOG_USEC", "")
    return int(micros) / 1e6 if micros.isascii() and micros.isdigit() and int(micros) else None


@attrs.frozen
class Watchdog:
    """A service: sends a sign of life three times per ``period`` while the Trio loop runs."""

    notifier: Notifier
    period: float | None
    name: str = "watchdog"

    async def run(self, *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        if self.period is None:
            await trio.sleep_forever()
        else:
            async for _ in ticks(self.period / 3):
                self.notifier.alive()
