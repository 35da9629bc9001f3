"""For tests alone: has vLLM's build for processors run on Ray, which it refuses for want of a name for its devices.

Put on ``PYTHONPATH`` of Ray and vLLM; the machine offers a GPU that is made up.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_PLATFORM = "vllm.platforms.cpu"


class _NamesDevices(MetaPathFinder):
    """Finds vLLM's platform as usual, and gives it the name when it has been read."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        found = PathFinder.find_spec(name, path, target) if name == _PLATFORM else None
        if found is None or found.loader is None:
            return None
        read = found.loader.exec_module

        def read_and_name(module: ModuleType) -> None:
            read(module)
            module.CpuPlatform.ray_device_key = "GPU"

        found.loader.exec_module = read_and_name  # type: ignore[method-assign]  # of this one module
        return found


sys.meta_path.insert(0, _NamesDevices())
