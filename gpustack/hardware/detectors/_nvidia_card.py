"""One NVIDIA card that is being asked, question by question."""

from __future__ import annotations

from typing import Any

import attrs

from gpustack.text import said_by

_LOST = frozenset(
    {"NVMLError_GpuIsLost", "NVMLError_ResetRequired", "NVMLError_NotFound", "NVMLError_GpuNotFound"}
)


@attrs.define
class Card:
    """One device that is being asked. A question that fails has no answer; a lost card gets one ``fault``."""

    nvml: Any
    handle: Any
    fault: str | None = None
    unsupported: set[str] = attrs.field(factory=set)

    def ask(self, name: str, *arguments: object) -> Any:
        """The answer of ``nvmlDevice<name>``, or ``None``."""
        try:
            return getattr(self.nvml, f"nvmlDevice{name}")(self.handle, *arguments)
        except self.nvml.NVMLError as error:
            kind = type(error).__name__
            if kind in _LOST:
                self.fault = (
                    self.fault
                    or f"The driver says of this GPU: {said_by(error)}; it needs a reset or a reboot"
                )
            elif kind == "NVMLError_NotSupported":
                self.unsupported.add(name)
            return None
