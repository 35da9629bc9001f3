"""docs/attacks.md, written from the tests that are marked as attacks: ``python -m tests.attacks > docs/attacks.md``.

A test that attacks carries ``@pytest.mark.attack("kind")``, its kind one of ``KINDS``; a module whose tests all do
says ``pytestmark = pytest.mark.attack("kind")``, and the marker nearest to a test counts.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
MARK = "attack"

KINDS: Mapping[str, str] = {
    "access": "Somebody takes what their role, key or place does not give them.",
    "guessing": "Names, passwords and keys are tried out.",
    "session": "A login is chosen for somebody, stolen, or used after its end.",
    "cross-site": "A page of another site acts through its visitor's browser.",
    "oidc": "The OpenID Connect sign-on is forged, replayed or mixed up.",
    "saml": "The SAML sign-on is forged, replayed, wrapped or made to read files.",
    "limits": "More is used than a key, a user or a model may.",
    "worker": "A machine speaks for another one, or somebody speaks for a machine.",
    "audit": "Something is done without a trace, or a trace is forged.",
    "smuggling": "A message is written so that two programs read it differently.",
    "engine": "An engine's answer breaks the rules, floods, or speaks for us.",
    "hub": "A model hub or another site lies, floods or leads astray.",
    "parser": "Bytes that are none of what they should be.",
    "flood": "Requests that are too large, too slow, too many, or never end.",
    "traversal": "A path or a name leads out of the folder it is meant for.",
    "ssrf": "An address leads into this machine or network.",
    "forged-line": "A name or a message forges a line of a log or steers a terminal.",
    "secret": "A secret is looked for where others read.",
    "mistake": "An administrator's mistake, or trick, that should end nothing but itself.",
}

HEAD = """\
# Attacks tried and refused

<!-- Written by `make docs`. Mark tests with `@pytest.mark.attack("kind")`, then run that again. -->

Each line is a test of `make test` that attacks and sees the attack fail. "Tries" counts its variants; a test that
makes up its own input, hundreds of times a run, counts once. Whom GPUStack trusts with what is in
[SECURITY.md](../SECURITY.md).
"""

Attack = tuple[str, str, str]
"""Kind, file and function."""


class Collector:
    """A plugin of pytest that looks at what was collected."""

    def __init__(self) -> None:
        self.attacks: Counter[Attack] = Counter()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            marker = item.get_closest_marker(MARK)
            if marker is not None:
                name = getattr(item, "originalname", None) or item.name
                file = item.path.relative_to(TESTS.parent).as_posix()
                self.attacks[marker.args[0], file, name] += 1


def marked_files() -> list[Path]:
    """The test files that hold an attack."""
    return [path for path in sorted(TESTS.rglob("test_*.py")) if f"mark.{MARK}(" in path.read_text()]


def collect() -> Counter[Attack]:
    """Every attack and its number of tries. Raises RuntimeError if tests cannot be collected."""
    collector = Collector()
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = pytest.main(
            ["--collect-only", "-q", "-p", "no:cacheprovider", *map(str, marked_files())], [collector]
        )
    if code != pytest.ExitCode.OK:
        raise RuntimeError(said.getvalue())
    return collector.attacks


def page(attacks: Counter[Attack]) -> str:
    """The text of docs/attacks.md. Raises KeyError for a kind that is not in ``KINDS``."""
    unknown = {kind for kind, _, _ in attacks} - set(KINDS)
    if unknown:
        raise KeyError(f"not a kind of attack in tests/attacks.py: {sorted(unknown)}")
    text = HEAD
    for kind, what in KINDS.items():
        of_kind = sorted((name, file, count) for (one, file, name), count in attacks.items() if one == kind)
        if of_kind:
            text += f"\n## {kind}\n\n{what}\n\n| What holds | Tries | Test |\n| --- | --- | --- |\n"
            text += "".join(f"| {_sentence(name)} | {count} | `{file}` |\n" for name, file, count in of_kind)
    return text


def written_anew() -> str:
    """What the document should hold now, collected in a process of its own."""
    command = [sys.executable, "-m", "tests.attacks"]
    done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr or done.stdout)
    return done.stdout


def _sentence(name: str) -> str:
    return name.removeprefix("test_").replace("_", " ")


def main() -> None:
    attacks = collect()
    print(page(attacks), end="")
    kinds = Counter[str]()
    for (kind, _, _), count in attacks.items():
        kinds[kind] += count
    counts = ", ".join(f"{kind} {kinds[kind]}" for kind in KINDS if kinds[kind])
    print(f"{sum(kinds.values())} tries of {len(kinds)} kinds: {counts}", file=sys.stderr)


if __name__ == "__main__":
    main()
