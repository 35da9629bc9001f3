"""The paths ``/v1/images/generations`` and ``/v1/images/edits``."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping
from typing import Any

import attrs
import trio

from gpustack.launchers.service import field
from gpustack.launchers.service.app import Handler
from gpustack.launchers.service.call import EVENTS, ServiceCall, refuse_field
from gpustack.launchers.service.form import uploaded_form
from gpustack.launchers.service.work import WorkQueue

from .drawing import FORMATS, SAMPLERS, SCHEDULES, DrawProgress, DrawSettings, Painter

_BODY_LIMIT = 1 << 20
_LONGEST_PROMPT = 16_000
_MOST_STEPS = 200
_MOST_PREVIEWS = 10
_SIZE = re.compile(r"([1-9][0-9]{1,4})x([1-9][0-9]{1,4})", re.ASCII)
_MULTIPLE = 8
_LEAST_SIDE = 64
_NOT_SERVED = ("control_image", "control_net", "control_strength", "lora")
_LARGEST_SEED = 2**32 - 1


@attrs.frozen(kw_only=True)
class DrawLimits:
    """The most that one request may ask for. ``side`` in pixels."""

    images: int = 4
    side: int = 2048


class DrawingPaths:
    """Draws; answers with all images at once, or as a stream that tells how far each is."""

    def __init__(self, painter: Painter, work: WorkQueue, limits: DrawLimits) -> None:
        self._painter = painter
        self._work = work
        self._limits = limits

    @property
    def routes(self) -> Mapping[tuple[str, str], Handler]:
        return {("POST", "/v1/images/generations"): self._generate, ("POST", "/v1/images/edits"): self._edit}

    async def _generate(self, call: ServiceCall) -> None:
        fields = await call.document(_BODY_LIMIT)
        options = fields.get("stream_options")
        if options is not None and not isinstance(options, dict):
            refuse_field("stream_options", "must be an object")
        await self._answer(call, fields, options or {}, self._settings(fields, options or {}))

    async def _edit(self, call: ServiceCall) -> None:
        async with uploaded_form(call) as form:
            options = {
                name.removeprefix("stream_options_"): value
                for name, value in form.fields.items()
                if name.startswith("stream_options_")
            }
            settings = attrs.evolve(
                self._settings(form.fields, options),
                image=form.file("image").file,
                mask=form.file("mask").file if "mask" in form.files else None,
            )
            await self._answer(call, form.fields, options, settings)

    def _settings(self, fields: Mapping[str, Any], options: Mapping[str, Any]) -> DrawSettings:
        """What the fields ask for. Raises ``ServiceFault``. Names with an ``or`` are those of the existing product."""
        for name in _NOT_SERVED:
            if fields.get(name) not in (None, ""):
                refuse_field(name, "is not served here")
        prompt = field.text(fields, "prompt", most=_LONGEST_PROMPT)
        if prompt is None or not prompt.strip():
            refuse_field("prompt", "must say what to draw")
        width, height = self._size(fields)
        sampler = _first(fields, "sampler", "sample_method")
        schedule = _first(fields, "schedule", "schedule_method")
        return DrawSettings(
            prompt=prompt,
            negative_prompt=field.text(fields, "negative_prompt", most=_LONGEST_PROMPT),
            count=field.whole(fields, "n", least=1, most=self._limits.images, default=1) or 1,
            width=width,
            height=height,
            steps=field.whole(
                fields, _first(fields, "sample_steps", "sampling_steps", "steps"), least=1, most=_MOST_STEPS
            ),
            seed=field.whole(fields, "seed", least=0, most=_LARGEST_SEED),
            guidance=field.number(
                fields, _first(fields, "cfg_scale", "guidance", "guidance_scale"), least=0.0, most=50.0
            ),
            sampler=field.choice(fields, sampler, SAMPLERS, "") or None,
            schedule=field.choice(fields, schedule, SCHEDULES, "") or None,
            strength=field.number(fields, "strength", least=0.0, most=1.0),
            previews=_previews(fields, options),
            format=field.choice(fields, "output_format", FORMATS, "png"),
        )

    def _size(self, fields: Mapping[str, Any]) -> tuple[int | None, int | None]:
        size = field.text(fields, "size", most=32)
        if size in (None, "", "auto"):
            return None, None
        found = _SIZE.fullmatch(size or "")
        if found is None:
            refuse_field("size", "must be WIDTHxHEIGHT in pixels, such as 512x512, or auto")
        sides = int(found[1]), int(found[2])
        if any(side % _MULTIPLE or not _LEAST_SIDE <= side <= self._limits.side for side in sides):
            refuse_field(
                "size",
                f"must have sides of {_LEAST_SIDE} to {self._limits.side} pixels, multiples of {_MULTIPLE}",
            )
        return sides

    async def _answer(
        self, call: ServiceCall, fields: Mapping[str, Any], options: Mapping[str, Any], settings: DrawSettings
    ) -> None:
        shape = field.choice(fields, "response_format", ("b64_json", "url"), "b64_json")
        stream = field.flag(fields, "stream")
        field.flag(options, "chunk_result")
        self._painter.check(settings)
        async with self._work.turn():
            if stream:
                await self._stream(call, settings, shape)
            else:
                await self._whole(call, settings, shape)

    async def _whole(self, call: ServiceCall, settings: DrawSettings, shape: str) -> None:
        images = self._painter.draw(settings, lambda _: trio.from_thread.check_cancelled())
        data = []
        async for image in self._work.items(images):
            self._work.count("images")
            data.append(_image(image, settings, shape))
        await call.answer({"created": int(time.time()), "output_format": settings.format, "data": data})

    async def _stream(self, call: ServiceCall, settings: DrawSettings, shape: str) -> None:
        """Events of the existing product: after each step how far an image is; its last event holds it."""
        created = int(time.time())
        send, receive = trio.open_memory_channel[DrawProgress](_MOST_STEPS)

        def tell(progress: DrawProgress) -> None:
            trio.from_thread.run(send.send, progress)  # a cancellation ends the drawing here

        faults: list[Exception] = []

        async def draw() -> None:
            async with send:
                index = 0
                try:
                    async for image in self._work.items(self._painter.draw(settings, tell)):
                        self._work.count("images")
                        await send.send(DrawProgress(index=index, percent=100.0, preview=image))
                        index += 1
                except Exception as error:  # noqa: BLE001  # raised below, outside of the nursery, which would wrap it
                    faults.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(draw)
            async for progress in receive:
                if not call.began:
                    await call.begin(EVENTS)
                await call.event({"created": created, "data": [_chunk(progress, settings, shape)]})
        if faults:
            raise faults[0]
        await call.more(b"data: [DONE]\n\n")
        await call.end()


def _previews(fields: Mapping[str, Any], options: Mapping[str, Any]) -> int:
    asked = field.whole(fields, "partial_images", least=0, most=_MOST_PREVIEWS, default=0) or 0
    wants_some = field.flag(options, "preview") or field.flag(options, "preview_faster")
    return max(asked, _MOST_PREVIEWS if wants_some else 0)


def _first(fields: Mapping[str, Any], *names: str) -> str:
    """The first of several names for one thing that is given; else the first of them."""
    return next((name for name in names if fields.get(name) not in (None, "")), names[0])


def _image(image: bytes, settings: DrawSettings, shape: str) -> dict[str, str]:
    encoded = base64.b64encode(image).decode()
    if shape == "url":
        return {"url": f"data:image/{settings.format};base64,{encoded}"}
    return {"b64_json": encoded}


def _chunk(progress: DrawProgress, settings: DrawSettings, shape: str) -> dict[str, Any]:
    shown = {} if progress.preview is None else _image(progress.preview, settings, shape)
    return {
        "index": progress.index,
        "object": "image.chunk",
        "progress": round(progress.percent, 2),
        **shown,
    }
