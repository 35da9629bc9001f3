"""Model files: their sources, their place on a worker, and the progress of a download."""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import StrEnum
from pathlib import PurePosixPath

import attrs

from .record import Record, stored


class SourceKind(StrEnum):
    """Where a model comes from, in the words of the wire."""

    HUGGING_FACE = "huggingface"
    MODEL_SCOPE = "model_scope"
    OLLAMA = "ollama_library"
    LOCAL_PATH = "local_path"


@attrs.frozen(kw_only=True)
class ModelSource:
    """Names what to fetch. Only the fields of its ``kind`` are set; file names may be patterns (``*Q4_K_M*.gguf``)."""

    kind: SourceKind
    huggingface_repo_id: str | None = None
    huggingface_filename: str | None = None
    ollama_library_model_name: str | None = None
    model_scope_model_id: str | None = None
    model_scope_file_path: str | None = None
    local_path: str | None = None
    revision: str | None = None

    @property
    def repo(self) -> str:
        """The repository, model name or path, without the file."""
        return (
            self.huggingface_repo_id
            or self.model_scope_model_id
            or self.ollama_library_model_name
            or self.local_path
            or ""
        )

    @property
    def file_pattern(self) -> str | None:
        """The file or pattern within the repository, if one was named."""
        return self.huggingface_filename or self.model_scope_file_path

    @property
    def readable(self) -> str:
        """One line for people: repository and file joined by ``/``."""
        parts = [self.repo, self.file_pattern or ""]
        text = "/".join(part for part in parts if part)
        return f"{text}@{self.revision}" if self.revision else text

    @property
    def index(self) -> str:
        """SHA-256 of the readable source: equal sources share their files."""
        return hashlib.sha256(f"{self.kind.value}:{self.readable}".encode()).hexdigest()

    @property
    def names_gguf(self) -> bool:
        """Whether the source by itself names a GGUF file; a repository or folder alone does not."""
        if self.kind is SourceKind.OLLAMA:
            return True
        name = self.file_pattern or (self.local_path or "")
        return PurePosixPath(name.lower()).suffix == ".gguf"


@attrs.frozen(kw_only=True)
class LoraAdapter:
    """A LoRA adapter of a deployment: clients ask for it as ``<deployment>:<name>``."""

    name: str
    source: ModelSource


class FileState(StrEnum):
    """The life of a model file on one worker."""

    DOWNLOADING = "downloading"
    READY = "ready"
    ERROR = "error"


@stored("model_files", unique=(("worker_id", "source_index", "local_dir"),))
@attrs.frozen(kw_only=True)
class ModelFile(Record):
    """The files of one source on one worker. The worker owns progress and state."""

    worker_id: int
    source: ModelSource
    source_index: str
    local_dir: str = ""
    cleanup_on_delete: bool = True
    size: int | None = None
    download_progress: float | None = None
    download_speed: float | None = None
    """Bytes a second, while they are fetched."""
    fetched_from: str = ""
    """Where most of the bytes came from: ``hub``, or the name of a worker; empty when none had to be fetched."""
    resolved_paths: tuple[str, ...] = ()
    state: FileState = FileState.DOWNLOADING
    state_message: str = ""
    pinned: bool = False
    """Eviction leaves it alone."""
    last_used_at: datetime | None = None
    """When an instance last began or ceased to use it; ``None`` if none ever did."""
    deleted_at: datetime | None = None
    """Set when it is to be removed: the worker removes the files, then the server deletes the record."""

    @property
    def eta(self) -> float | None:
        """Seconds until it is here at the present speed; ``None`` if unknown."""
        if self.state is not FileState.DOWNLOADING or not self.size or not self.download_speed:
            return None
        return self.size * (1 - (self.download_progress or 0.0) / 100) / self.download_speed
