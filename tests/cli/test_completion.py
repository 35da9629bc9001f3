"""Shells complete what the usage texts offer, and nothing else: tried in the shells themselves."""

from __future__ import annotations

import os
import pty
import select
import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from gpustack.cli.completion import SHELLS
from gpustack.cli.main import WITHOUT_SERVER, names
from gpustack.cli.vocabulary import WordPosition, text_of, vocabulary
from tests.daemon import WITHIN
from tests.needs import requires

EVERY = {one.command: one for one in vocabulary()}


def test_the_vocabulary_is_what_the_usage_texts_say() -> None:
    assert list(EVERY) == names()
    for name, one in EVERY.items():
        text = text_of(name)
        assert ("--context" in {option.name for option in one.options}) == (name not in WITHOUT_SERVER)
        for option in one.options:
            if option.name == "--context":
                continue
            assert option.name in text and (option.short is None or f"{option.short}, {option.name}" in text)
        for step in one.steps:
            assert all(verb in text.split("\n\n")[1] for verb in step.verbs), name
            assert {*step.lists} <= {*names()}, name
    assert {"bar", "admit"} <= {*EVERY["workers"].steps[0].verbs}
    assert EVERY["rm"].steps == (WordPosition(lists=("ls",)),) and EVERY["run"].takes_files
    assert EVERY["db"].steps == (WordPosition(verbs=("migrate-from",)),)
    (form,) = (option for option in EVERY["ls"].options if option.name == "--output")
    assert (form.short, form.value, form.choices) == ("-o", "FORM", ("table", "wide", "json", "yaml"))
    (access,) = (option for option in EVERY["run"].options if option.name == "--access")
    assert access.choices == ("public", "authed")
    assert {option.name for option in EVERY["start"].options} >= {"--port", "--data-dir", "--server-url"}


@pytest.fixture
def at(tmp_path: Path) -> Path:
    """A folder with the programs, a ``gpustack`` that lists names, and a model to find."""
    for name, write in SHELLS.items():
        (tmp_path / name).write_text(write(list(EVERY.values())))
    program = tmp_path / "gpustack"
    program.write_text(
        '#!/bin/sh\ncase "$*" in "ls -q") echo tiny; echo tall ;; "workers -q") echo node-a ;; "keys -q") echo ci ;; '
        "esac\n"
    )
    program.chmod(0o755)
    (tmp_path / "model.gguf").touch()
    return tmp_path


CASES = [
    ("expl", {"explain"}),
    ("workers ", {"bar", "admit"}),
    ("workers ad", {"admit"}),
    ("workers bar no", {"node-a"}),
    ("rm t", {"tiny", "tall"}),
    ("ls --out", {"--output"}),
    ("ls --output=", {"table", "json", "yaml"}),
    ("ls -o j", {"json"}),
    ("run --access=p", {"public"}),
    ("run mod", {"model.gguf"}),
    ("events no", {"node-a"}),
    ("files co", {"copy"}),
    ("keys create --model=ti", {"tiny"}),
    ("nosuch ", set()),
]


def completed_by_bash(at: Path, line: str) -> set[str]:
    """What bash offers. It parts words at ``=`` too, as its line editor does."""
    words = shlex.split(line.replace("=", " = ")) + ([""] if line.endswith((" ", "=")) else [])
    script = (
        f"source {at}/bash; COMP_WORDS=(gpustack {' '.join(map(shlex.quote, words))}); "
        f'COMP_CWORD={len(words)}; _gpustack; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    return offered(["bash", "--norc", "-c", script], at)


def completed_by_fish(at: Path, line: str) -> set[str]:
    found = offered(
        ["fish", "--no-config", "-c", f"source {at}/fish; complete -C {shlex.quote('gpustack ' + line)}"], at
    )
    return {one.split("\t")[0].rpartition("=")[2] if "=" in line else one.split("\t")[0] for one in found}


def offered(argv: Sequence[str], at: Path) -> set[str]:
    requires(argv[0])
    env = {**os.environ, "PATH": f"{at}:{os.environ['PATH']}", "HOME": str(at)}
    ran = subprocess.run(argv, cwd=at, env=env, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert not ran.stderr, ran.stderr
    return {line for line in ran.stdout.splitlines() if line}


ONLY = [
    ("workers bar ", {"node-a"}),
    ("workers label node-a ", {"node-a"}),
    ("workers drain --timeout 3 ", {"node-a"}),
    ("keys ", {"create", "enable", "disable", "rm"}),
    ("keys rm ", {"ci"}),
    ("keys create ", set()),
    ("limits ", {"set", "key", "user", "model"}),
    ("limits set ", {"key", "user", "model"}),
    ("limits set key ", {"ci"}),
    ("limits model ", {"tiny", "tall"}),
]
"""Lines behind which nothing else may stand."""


@pytest.mark.parametrize(("line", "wanted"), ONLY)
def test_what_cannot_stand_in_a_place_is_not_offered_there(at: Path, line: str, wanted: set[str]) -> None:
    assert completed_by_bash(at, line) == wanted
    assert completed_by_fish(at, line) == wanted


@pytest.mark.parametrize(("line", "wanted"), CASES)
def test_bash_completes(at: Path, line: str, wanted: set[str]) -> None:
    assert wanted <= {one.rstrip("=") for one in completed_by_bash(at, line)}
    if not wanted:
        assert completed_by_bash(at, line) == set()


@pytest.mark.parametrize(("line", "wanted"), CASES)
def test_fish_completes(at: Path, line: str, wanted: set[str]) -> None:
    assert wanted <= completed_by_fish(at, line)
    if not wanted:
        assert completed_by_fish(at, line) == set()


def typed(argv: Sequence[str], at: Path, steps: Sequence[tuple[str, bytes]], last: str) -> str:
    """What a shell shows at a terminal; once a text has appeared the keys beside it are typed, until ``last``."""
    requires(argv[0])
    master, slave = pty.openpty()
    env = {**os.environ, "PATH": f"{at}:{os.environ['PATH']}", "HOME": str(at), "TERM": "dumb"}
    process = subprocess.Popen(
        argv, cwd=at, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )
    os.close(slave)
    shown, seen, end = "", 0, time.monotonic() + WITHIN
    waiting = [*steps, (last, b"")]
    try:
        while waiting and time.monotonic() < end:
            if select.select([master], [], [], 0.5)[0]:
                shown += os.read(master, 65536).decode(errors="replace")
            while waiting and (found := shown.find(waiting[0][0], seen)) >= 0:
                seen = found + len(waiting[0][0])
                os.write(master, waiting.pop(0)[1])
        assert not waiting, f"{waiting[0][0]!r} never came:\n{shown}"
        return shown
    finally:
        process.kill()
        process.wait(WITHIN)
        os.close(master)


ZSH = b"autoload -U compinit; compinit -u -d dump; source ./zsh; PS1='ok'$'> '\r"


@pytest.mark.parametrize(
    ("keys", "last"),
    [
        (b"gpustack expl\t", "gpustack explain "),
        (b"gpustack workers ad\t", "gpustack workers admit "),
        (b"gpustack workers bar no\t", "gpustack workers bar node-a "),
        (b"gpustack workers bar \t", "gpustack workers bar node-a "),
        (b"gpustack limits set key \t", "gpustack limits set key ci "),
        (b"gpustack rm tin\t", "gpustack rm tiny "),
        (b"gpustack ls --outp\t", "gpustack ls --output"),
        (b"gpustack ls --output=js\t", "gpustack ls --output=json"),
        (b"gpustack ls -o js\t", "gpustack ls -o json"),
        (b"gpustack run mod\t", "gpustack run model.gguf"),
    ],
)
def test_zsh_completes_at_a_terminal(at: Path, keys: bytes, last: str) -> None:
    typed(
        ["zsh", "-f", "-i"],
        at,
        [("% ", ZSH), ("ok> ", keys)] if os.geteuid() else [("# ", ZSH), ("ok> ", keys)],
        last,
    )


def test_bash_completes_at_a_terminal(at: Path) -> None:
    begin = b"PS1='ok'$'> '; source ./bash\r"
    for keys, last in (
        (b"gpustack expl\t", "gpustack explain "),
        (b"gpustack ls --output=js\t", "gpustack ls --output=json "),
        (b"gpustack ls --outp\t", "gpustack ls --output="),
        (b"gpustack rm tin\t", "gpustack rm tiny "),
    ):
        typed(["bash", "--norc", "-i"], at, [("-", begin), ("ok> ", keys)], last)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_prints_the_program_of_a_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    from gpustack.cli.main import main

    assert main(["completion", shell], {}) == 0
    assert capsys.readouterr().out == SHELLS[shell](list(EVERY.values()))
    assert main(["completion", "tcsh"], {}) == 2
