"""Reads what a folder of safetensors says about its model: configuration files, and the header of each shard."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import attrs
import trio

from gpustack.artifacts.disk import disk
from gpustack.artifacts.headers.gguf import HeaderError
from gpustack.artifacts.headers.model_config import MOST_CONFIG, read_json
from gpustack.artifacts.headers.part_reader import PartReader
from gpustack.artifacts.headers.safetensors import FIRST_READ, header_length, parse
from gpustack.artifacts.headers.safetensors_facts import ModelFolder, is_quantised, safetensors_facts
from gpustack.artifacts.headers.tensor_tally import TensorTally
from gpustack.artifacts.listing import Listing, RemoteFile, model_of, shard_of, shards
from gpustack.domain.facts import ModelFacts
from gpustack.domain.model import Category
from gpustack.errors import BadRequest, GpustackError, NotFound

MOST_SHARDS = 1024
MOST_INDEX = 32 << 20
"""Bytes; that of a model of 140,000 tensors has 14 MB."""
_AT_ONCE = 6
_CONFIG, _INDEX = "config.json", "model.safetensors.index.json"
_QUANTISATIONS = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")
_POOLINGS: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_mean_tokens": "mean",
}


async def read_folder(listing: Listing, parts: PartReader) -> ModelFacts:
    """The facts of the model in ``listing``, of any format but GGUF.

    Its weights are the safetensors of the folder itself, as engines read them: not those of folders within, nor the
    same weights in other formats. Cancellable. Raises BadRequest for damaged files, and what ``parts`` raises.
    """
    return await _FolderReader(listing, parts).read()


@attrs.define
class _FolderReader:
    listing: Listing
    parts: PartReader
    files: Mapping[str, RemoteFile] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.files = {file.name: file for file in self.listing.files}

    async def read(self) -> ModelFacts:
        folder = await self._documents()
        size = self.listing.size
        if folder.pipeline:
            tally = TensorTally(stored=sum(f.size for f in self.listing.files if _is_weights(f.name)))
            return self._facts(folder, tally, size, shards=1)
        weights = await self._weights()
        tally = TensorTally(quantised=is_quantised(folder))
        await self._count(weights, tally)
        return self._facts(folder, tally, size, shards=len(weights))

    def _facts(self, folder: ModelFolder, tally: TensorTally, size: int, shards: int) -> ModelFacts:
        try:
            return safetensors_facts(folder, tally, file_size=size, shards=shards)
        except HeaderError as error:
            raise BadRequest(f"{_CONFIG} of {self.listing.folder} cannot be used: {error}") from error

    async def _documents(self) -> ModelFolder:
        if "model_index.json" in self.files:
            return ModelFolder(pipeline=True)
        config = await self._document(_CONFIG)
        if config is None and "adapter_config.json" in self.files:
            return ModelFolder(adapter=await self._document("adapter_config.json"))
        folder = ModelFolder(config=config, pooling=await self._pooling(), category=self._by_names())
        if is_quantised(folder):
            return folder
        beside = next((name for name in _QUANTISATIONS if name in self.files), None)
        return folder if beside is None else attrs.evolve(folder, quantisation=await self._document(beside))

    async def _document(self, name: str, most: int = MOST_CONFIG) -> Mapping[str, Any] | None:
        """A JSON file of the folder; ``None`` if it is not there."""
        file = self.files.get(name)
        if file is None:
            return None
        if file.size > most:
            raise BadRequest(f"{name} has {file.size} bytes, more than such a file may have ({most})")
        data = await self.parts.read(file, 0, file.size)
        try:
            return await disk.run(read_json, data, abandon=True)
        except HeaderError as error:
            raise BadRequest(f"{name} cannot be read: {error}") from error

    async def _pooling(self) -> str | None:
        """How the modules of sentence-transformers make a vector or a score; ``None`` where there are none."""
        file = self.files.get("modules.json")
        if file is None or file.size > MOST_CONFIG:
            return None
        data = await self.parts.read(file, 0, file.size)
        try:
            modules = read_json(b'{"modules":' + data + b"}").get("modules")
        except HeaderError as error:
            raise BadRequest(f"modules.json cannot be read: {error}") from error
        kinds = {
            str(one.get("type", "")): str(one.get("path", ""))
            for one in (modules if isinstance(modules, list) else [])[:64]
            if isinstance(one, dict)
        }
        if any("cross_encoder" in kind or "LogitScore" in kind for kind in kinds):
            return "rank"
        path = next((path for kind, path in kinds.items() if kind.endswith("Pooling")), None)
        said = None if path is None else await self._document(f"{path}/config.json")
        found = next((word for key, word in _POOLINGS.items() if said and said.get(key) is True), None)
        return found or ("mean" if path is not None else None)

    def _by_names(self) -> Category | None:
        """What models of other kinds show by the names of their files: voices of Piper and Kokoro, Whisper for
        CTranslate2."""
        names = [name for name in self.files if "/" not in name]
        networks = [name for name in self.files if name.endswith(".onnx")]
        voices = any(name.startswith("voices") and name.endswith(".bin") for name in names)
        if any(f"{name}.json" in self.files for name in networks) or (networks and voices):
            return Category.TEXT_TO_SPEECH
        is_whisper = "model.bin" in self.files and any(name.startswith("vocabulary.") for name in names)
        return Category.SPEECH_TO_TEXT if is_whisper else None

    async def _weights(self) -> list[RemoteFile]:
        """The shards, as their names tell where they are complete, else as the index says."""
        own = [name for name in self.files if _is_weights(name) and "/" not in name]
        if not _is_whole_set(own) and _INDEX in self.files:
            own = await self._indexed()
        elif missing := _missing_of(own):
            raise BadRequest(missing)
        elif len(own) > 1:  # the same weights may be there in one file, for other programs
            own = [name for name in own if not name.startswith("consolidated")] or own
        if len(own) > MOST_SHARDS:
            raise BadRequest(f"The model has {len(own)} files of weights, more than {MOST_SHARDS}")
        return [self.files[name] for name in sorted(own)]

    async def _indexed(self) -> list[str]:
        index = await self._document(_INDEX, MOST_INDEX) or {}
        placed = index.get("weight_map")
        names = set(placed.values()) if isinstance(placed, dict) and _are_names(placed.values()) else set()
        if not names:
            raise BadRequest(f"{_INDEX} does not say in which files the weights are")
        missing = sorted(name for name in names if name not in self.files)
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            listed = ", ".join(name[:100] for name in missing[:3])
            raise BadRequest(f"Of the files that {_INDEX} names, {listed}{more} is missing")
        return list(names)

    async def _count(self, weights: list[RemoteFile], tally: TensorTally) -> None:
        """Add up all shards, some at a time; the first fault ends them all."""
        faults: list[GpustackError | OSError] = []
        room = trio.Semaphore(_AT_ONCE)
        expected = FIRST_READ

        async def count(file: RemoteFile) -> None:
            nonlocal expected
            try:
                async with room:
                    found, length = await self._shard(file, expected, tally.quantised)
            except (GpustackError, OSError) as error:
                faults.append(error)
                nursery.cancel_scope.cancel()
                return
            expected = max(expected, length + length // 4)  # so that the next ones are read in one go
            try:
                tally.merge(found)
            except HeaderError as error:
                faults.append(BadRequest(f"The header of {file.name} cannot be read: {error}"))
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for file in weights:
                nursery.start_soon(count, file)
        if faults:
            raise faults[0]

    async def _shard(self, file: RemoteFile, expected: int, quantised: bool) -> tuple[TensorTally, int]:
        """The sums of one shard, and the length of its header."""
        try:
            data = await self.parts.read(file, 0, min(expected, file.size))
            length = header_length(data)
            if len(data) < length <= file.size:
                data += await self.parts.read(file, len(data), length)
            found, least = await disk.run(_tally, data, quantised, abandon=True)
        except HeaderError as error:
            raise BadRequest(f"The header of {file.name} cannot be read: {error}") from error
        if file.size < least:
            raise BadRequest(
                f"{file.name} is cut short: it has {file.size} bytes of at least {least}; copy or download it again"
            )
        return found, length


def _tally(data: bytes, quantised: bool) -> tuple[TensorTally, int]:
    """The sums of one header, and the size that its file has at least. Takes a while; for a thread."""
    header = parse(data)
    tally = TensorTally(quantised=quantised)
    tally.add(header.tensors)
    return tally, header.least_file_size


def _is_weights(name: str) -> bool:
    return name.endswith(".safetensors")


def _is_whole_set(names: Iterable[str]) -> bool:
    """Whether the names are all shards of one model, or one file, and nothing else."""
    listed = list(names)
    found = [shard_of(PurePosixPath(name).name) for name in listed]
    if len(listed) == 1 and found[0] is None:
        return True
    wholes = {(shard[0], shard[2]) for shard in found if shard is not None}
    if None in found or len(wholes) != 1:
        return False
    ((_, total),) = wholes
    numbers = {shard[1] for shard in found if shard is not None}
    return len(numbers) == total == max(itertools.chain(numbers, (0,)))


def _missing_of(names: Sequence[str]) -> str | None:
    """Which shards are not there, where the names are shards of one model: an engine would load the others alone."""
    if any(shard_of(name) is None for name in names) or len({model_of(name) for name in names}) != 1:
        return None
    try:
        shards(names[0], names)
    except NotFound as error:
        return str(error)
    return None


def _are_names(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)
