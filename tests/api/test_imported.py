"""What gpustack import prints is taken by a server that has nothing yet."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import trio

from gpustack.domain.yaml_lines import read_documents
from tests.fakes.foreign import GPUSTACK, LITELLM, LLAMA_SWAP, OLLAMA, answering, gpustack_database

from .world import World

command = importlib.import_module("gpustack.cli.commands.import")


async def test_what_was_imported_can_be_applied(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"swap.yaml": LLAMA_SWAP, "litellm.yaml": LITELLM}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    folder = tmp_path / "theirs"
    folder.mkdir()
    databases = [gpustack_database(folder, second=second) for second in (False, True)]
    with answering(OLLAMA) as ollama, answering(GPUSTACK) as gpustack:
        for argv in (
            *(f"--from-config={tmp_path / name}" for name in files),
            *(f"--from-db={path}" for path in databases),
            f"--from-url={ollama}",
            f"--from-url={gpustack}",
        ):
            assert await trio.to_thread.run_sync(command.run, [argv], {"MODELS": "/models"}) == 0
            documents, _ = read_documents(capsys.readouterr().out.encode())
            body = {"documents": [one.value for one in documents if one.value], "dry_run": True}
            answer = await world.ask("POST", "/v1/manifests", world.admin, json=body)
            assert answer.status_code == 200, answer.text
            assert {one["change"] for one in answer.json()["objects"]} == {"created"}
