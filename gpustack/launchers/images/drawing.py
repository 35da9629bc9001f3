"""The values of a drawing: what is asked for, how far it is, and who draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, Protocol

import attrs

SAMPLERS = ("euler", "euler_a", "heun", "dpm++2m", "lcm", "ddim")
"""Methods of sampling, by the names that the existing product has for them."""
SCHEDULES = ("discrete", "karras")
FORMATS = ("png", "jpeg", "webp")


@attrs.frozen(kw_only=True)
class DrawSettings:
    """What a request asks for; ``None`` leaves it to the model. ``width`` and ``height`` in pixels."""

    prompt: str
    negative_prompt: str | None = None
    count: int = 1
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    seed: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    schedule: str | None = None
    strength: float | None = None
    """How far a given image is changed, from 0 to 1."""
    image: IO[bytes] | None = attrs.field(default=None, repr=False)
    mask: IO[bytes] | None = attrs.field(default=None, repr=False)
    """Where it is changed: where the mask is transparent, else where it is white."""
    previews: int = 0
    """Images that are shown unfinished, for each that is drawn."""
    format: str = "png"


@attrs.frozen(kw_only=True)
class DrawProgress:
    """How far the image with that ``index`` is: percent, and how it looks so far where that was asked for."""

    index: int
    percent: float
    preview: bytes | None = attrs.field(default=None, repr=False)


Tell = Callable[[DrawProgress], None]
"""Is called after each step. It may raise to end the drawing."""


class Painter(Protocol):
    """What draws. Blocking: its methods run in threads, one drawing at a time."""

    def check(self, settings: DrawSettings) -> None:
        """Raises ``ServiceFault`` for what this model cannot draw."""

    def draw(self, settings: DrawSettings, tell: Tell) -> Iterator[bytes]:
        """The images, each as a file in the format asked for, as soon as it is finished. Raises ``ServiceFault``."""
