"""The worker tells which of its file systems takes model files."""

from __future__ import annotations

from pathlib import Path

from gpustack.domain.worker import Filesystem, ModelDisk
from gpustack.worker.model_disk import ModelDiskFinder


async def test_the_file_system_of_the_cache_is_found_before_the_folder_is_there(tmp_path: Path) -> None:
    here = Filesystem(name="here", mount_point=str(tmp_path))
    proc = Filesystem(name="proc", mount_point="/proc")
    finder = ModelDiskFinder(tmp_path / "not" / "yet", True)
    assert await finder.among((proc, here)) == ModelDisk(mount_point=str(tmp_path), evicts=True)
    assert await finder.among((proc,)) is None
    assert await finder.among(()) is None
