"""Fetches the files of a LoRA adapter, in the form that its engine reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from gpustack.domain.artifact import LoraAdapter
from gpustack.domain.model import Model
from gpustack.engines.adapter import Adapter, AdapterSelection
from gpustack.errors import Invalid
from gpustack.nursery.limiter import threads
from gpustack.worker.model_file import ModelFiles

_CONFIG_LIMIT = 1 << 20
_threads = threads("adapters", 1)


async def fetch_adapter(
    selection: AdapterSelection | None,
    model: Model,
    adapter: LoraAdapter,
    files: ModelFiles,
    progress: Callable[[float], None] | None = None,
) -> Adapter:
    """An adapter of the deployment, fetched if it is missing; in the form that engines of that selection read.

    Raises ``Invalid`` for one of another form than the engine reads, and as ``ModelFiles.ensure`` does. Cancellable.
    """
    by_scale = selection is AdapterSelection.BY_SCALE
    found = await files.ensure(adapter.source, progress=progress)
    path = Path(found.main_path)
    if by_scale and path.suffix.lower() != ".gguf":
        raise Invalid(
            f"The adapter {adapter.name} ({adapter.source.readable}) is no GGUF file: convert it with llama.cpp's "
            "convert_lora_to_gguf.py, or name its file"
        )
    if not by_scale and path.suffix.lower() == ".safetensors":
        path = path.parent
    rank = None if by_scale else await _threads.run(_rank_of, path)
    return Adapter(name=f"{model.name}:{adapter.name}", path=str(path), rank=rank)


def _rank_of(folder: Path) -> int | None:
    """The rank that an adapter's configuration says. Blocking; raises ``Invalid`` where there is none."""
    try:
        with (folder / "adapter_config.json").open("rb") as source:
            rank = json.loads(source.read(_CONFIG_LIMIT))["r"]
    except OSError as error:
        raise Invalid(
            f"The adapter at {folder} has no adapter_config.json ({error.strerror}): name its folder or repository"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return rank if isinstance(rank, int) else None
