"""One NVIDIA card, or MIG instance of one, that is being asked, question by question."""

from __future__ import annotations

from typing import Any

import attrs

from gpustack.hardware.probe import DeviceProbe

_LOST = frozenset({"GpuIsLost", "ResetRequired", "NotFound", "GpuNotFound"})


@attrs.define
class Card:
    """A question that fails has no answer; a lost card gets one ``fault``."""

    probe: DeviceProbe
    handle: str
    fault: str | None = None
    unsupported: set[str] = attrs.field(factory=set)

    def ask(self, name: str, *arguments: object) -> Any:
        """The answer of ``nvmlDevice<name>``, or ``None``."""
        answer = self.probe.call(f"Device{name}", self.handle, *arguments)
        if answer.error in _LOST:
            self.fault = (
                self.fault or f"The driver says of this GPU: {answer.said}; it needs a reset or a reboot"
            )
        elif answer.error == "NotSupported":
            self.unsupported.add(name)
        return answer.value
