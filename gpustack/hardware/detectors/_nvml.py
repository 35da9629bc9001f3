"""NVIDIA's management library by its own bindings, with plain values in and out."""

from __future__ import annotations

import ctypes
from typing import Any

from gpustack.hardware.probe import CallAnswer
from gpustack.text import said_by


class Nvml:
    """``call("DeviceGetName", "2")`` asks ``nvmlDeviceGetName`` of GPU 2; "2.0" is its first MIG instance.

    Structures are answered as dicts by the names of their fields. Importing the bindings does not load the library;
    ``call("Init")`` does.
    """

    def __init__(self) -> None:
        import pynvml  # type: ignore[import-untyped]  # it comes without types

        self._nvml: Any = pynvml
        self._handles: dict[str, Any] = {}

    def call(self, function: str, *arguments: Any) -> CallAnswer:
        given = [self._handles.get(one, one) if isinstance(one, str) else one for one in arguments]
        try:
            if function == "DeviceGetMemoryInfo_v2":
                found = self._nvml.nvmlDeviceGetMemoryInfo(*given, self._nvml.nvmlMemory_v2)
            else:
                found = getattr(self._nvml, f"nvml{function}")(*given)
        except self._nvml.NVMLError as error:
            return CallAnswer(error=type(error).__name__.removeprefix("NVMLError_"), said=said_by(error))
        except AttributeError as error:
            return CallAnswer(error="FunctionNotFound", said=said_by(error))
        if "Handle" in function:
            name = ".".join(map(str, arguments))
            self._handles[name] = found
            return CallAnswer(value=name)
        return CallAnswer(value=_plain(found))


def _plain(value: Any) -> Any:
    """Older bindings answer with bytes where newer ones do with text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, ctypes.Structure):
        return {name: _plain(getattr(value, name)) for name, *_ in value._fields_}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    value = getattr(value, "value", value)
    # the bindings' own form of some structures, with None for "not available"
    return {name: _plain(one) for name, one in vars(value).items()} if hasattr(value, "__dict__") else value
