"""The command itself: finding sub-commands, help, exit codes, one-line errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gpustack import __version__
from gpustack.cli.command_line import read
from gpustack.cli.main import command, main, names, summary, usage
from tests.cli.document import document, module_of
from tests.documents import DOCS

GENERATED = {"start", "config"}
"""Their usage is made from the options."""


def gpustack(*argv: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GPUSTACK_")}
    return subprocess.run(
        [sys.executable, "-m", "gpustack", *argv],
        env={**clean, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_lists_every_command_with_its_summary_in_eighty_columns_or_a_few_more() -> None:
    text = usage()
    for name in names():
        assert f"  {name} " in text and summary(name) in text
        assert summary(name).endswith(".")
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.parametrize("name", names())
def test_the_first_line_of_a_command_is_the_summary_that_help_reads(name: str) -> None:
    assert (module_of(name).__doc__ or "").splitlines()[0] == summary(name)
    assert callable(command(name))


@pytest.mark.parametrize("name", sorted(set(names()) - GENERATED))
def test_every_command_has_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"], {})
    assert not ended.value.code
    told = capsys.readouterr().out
    assert f"gpustack {name}" in told and "--help" in told
    assert max(map(len, told.splitlines())) <= 120


@pytest.mark.parametrize("name", sorted(set(names()) - GENERATED))
def test_an_option_that_is_not_known_is_named_with_exit_code_2(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "x", "--no-such-option"], {}) == 2
    err = capsys.readouterr().err
    assert err.splitlines()[0] == f"gpustack {name} does not understand --no-such-option"
    assert f"  gpustack {name}" in err


def test_a_missing_argument_is_told_with_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scale", "x"], {}) == 2
    assert "argument is missing" in capsys.readouterr().err
    assert main(["scale", "x", "many"], {"GPUSTACK_SERVER_URL": "http://127.0.0.1:9"}) == 2
    assert "REPLICAS must be a whole number of at least 0, not 'many'" in capsys.readouterr().err


def test_a_command_that_is_not_one_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explian"], {}) == 2
    assert capsys.readouterr().err == "gpustack: There is no command 'explian'; did you mean explain?\n"


def test_alone_it_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], {}) == 0
    assert capsys.readouterr().out == usage()


def test_help_imports_nothing_heavy() -> None:
    """What ``--help`` imports is what Python itself and this list cost: the promise of 100 ms rests on it."""
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "gpustack", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines() if "|" in line}
    assert {name for name in imported if name.startswith("gpustack")} == {
        "gpustack",
        "gpustack.cli",
        "gpustack.cli.main",
        "gpustack.cli.failure",
        "gpustack.errors",
        "gpustack.text",
    }
    tops = {name.split(".")[0] for name in imported}
    assert not tops & {
        "attr",
        "attrs",
        "docopt",
        "trio",
        "httpx",
        "yaml",
        "json",
        "asyncio",
        "orjson",
        "inspect",
    }


def test_it_runs_as_a_module_and_tells_its_version() -> None:
    assert gpustack("version", "--short").stdout == f"{__version__}\n"
    assert gpustack("--version").stdout.startswith(f"{__version__} (")


def test_a_failure_is_one_line_that_names_the_knob() -> None:
    ran = gpustack("ls", env={"GPUSTACK_SERVER_URL": "http://192.0.2.1"})
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.count("\n") == 1
    assert ran.stderr.startswith("gpustack: GPUSTACK_API_KEY is not set: http://192.0.2.1 is another machine")


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    ran = subprocess.run(
        [sys.executable, "-m", "gpustack", "--help"],
        stdout=write_end,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(write_end)
    assert ran.stderr == b""
    assert ran.returncode != -signal.SIGPIPE


def test_options_after_two_dashes_are_the_prompt() -> None:
    from gpustack.cli.commands import run

    words = read(run.__doc__, "run", ["-p", "--ctx-size=1", "--", "tiny", "--is", "this", "-a", "prompt?"])
    assert words.text("MODEL") == "tiny"
    assert words.many("PROMPT") == ["--is", "this", "-a", "prompt?"]
    assert words.many("--param") == ["--ctx-size=1"]


def test_the_document_is_what_the_usage_texts_say() -> None:
    assert (DOCS / "cli.md").read_text() == document(), "run: make docs"


@pytest.mark.parametrize("name", ["ps", "ls", "workers", "servers"])
def test_a_proxy_that_cannot_be_used_is_one_line_of_every_command(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks4://me:Hunter2@127.0.0.1:1080")
    monkeypatch.setenv("all_proxy", "socks4://me:Hunter2@127.0.0.1:1080")
    assert main([name], {"GPUSTACK_SERVER_URL": "http://hub.invalid", "GPUSTACK_API_KEY": "k"}) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "Hunter2" not in said.err
    assert "all_proxy names a proxy of SOCKS 4, which is not spoken here: write socks5://" in said.err
