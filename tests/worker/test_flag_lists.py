from __future__ import annotations

from pathlib import Path

from gpustack.domain.worker import EngineBuild
from gpustack.engines.llama_cpp import ENGINE as LLAMA_CPP
from gpustack.engines.vllm import ENGINE as VLLM
from gpustack.engines.vllm_flags import NEWEST
from gpustack.worker.flag_lists import FlagLists


def program(folder: Path, body: str) -> EngineBuild:
    """A build whose program notes that it was asked, with its arguments."""
    path = folder / "vllm"
    path.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\n{body}\n')
    path.chmod(0o755)
    return EngineBuild(engine="vllm", version="9.9.0", path=str(path))


def asked(folder: Path) -> list[str]:
    try:
        return (folder / "asked").read_text().splitlines()
    except FileNotFoundError:
        return []


HELP = "cat <<END\noptions:\n  --brand-new N, -b N  A flag\nEND"


async def test_a_build_is_asked_once_and_by_the_next_daemon_only_if_it_changed(tmp_path: Path) -> None:
    build = program(tmp_path, HELP)
    first = FlagLists(tmp_path / "kept")
    for _ in range(2):
        found = await first.of(VLLM, build)
        assert found is not None and (found.version, found.names) == ("9.9.0", {"--brand-new", "-b"})
    assert await FlagLists(tmp_path / "kept").of(VLLM, build) == found
    assert asked(tmp_path) == ["serve --help=all"]
    await FlagLists(tmp_path / "kept").of(VLLM, program(tmp_path, HELP + "\n# another size"))
    assert len(asked(tmp_path)) == 2


async def test_a_build_of_the_version_that_we_know_is_not_asked(tmp_path: Path) -> None:
    build = EngineBuild(engine="vllm", version=f"{NEWEST.version}+cpu", path="/nowhere/vllm")
    assert await FlagLists(tmp_path).of(VLLM, build) is NEWEST
    assert await FlagLists(tmp_path).of(LLAMA_CPP, build) is None


async def test_what_does_not_answer_is_not_checked_and_not_asked_again(tmp_path: Path) -> None:
    for number, body in enumerate(("exit 3", "echo nothing here", "sleep 60")):
        folder = tmp_path / str(number)
        folder.mkdir()
        build, lists = (
            program(folder, body),
            FlagLists(folder / "kept", deadline=1.0 if number == 2 else 30.0),
        )
        assert await lists.of(VLLM, build) is None
        assert await lists.of(VLLM, build) is None
        assert len(asked(folder)) == 1


async def test_a_damaged_note_is_as_none(tmp_path: Path) -> None:
    build = program(tmp_path, HELP)
    await FlagLists(tmp_path / "kept").of(VLLM, build)
    (note,) = (tmp_path / "kept").iterdir()
    note.write_bytes(b"{")
    found = await FlagLists(tmp_path / "kept").of(VLLM, build)
    assert found is not None and len(asked(tmp_path)) == 2
