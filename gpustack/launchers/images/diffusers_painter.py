"""Draws with a pipeline of diffusers: Stable Diffusion and the others that its library knows."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import IO, Any

import attrs

from gpustack.launchers.service.call import ServiceFault, refuse_field

from .drawing import DrawProgress, DrawSettings, Tell

_MULTIPLE = 8
_LEAST_SIDE = 64
_SIDE = 512
"""Pixels, where neither the request nor the model says how large."""
_STRENGTH = 0.75
_STEPS = 30
_MOST_PIXELS = 64 << 20
"""Of an image that is sent."""
_SCHEDULERS = {
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpm++2m": "DPMSolverMultistepScheduler",
    "lcm": "LCMScheduler",
    "ddim": "DDIMScheduler",
}
"""Sampler → class of diffusers."""


class DiffusersPainter:
    """A loaded pipeline. One drawing at a time: a pipeline holds the state of the one under way."""

    def __init__(
        self, folder: str, *, device: tuple[str, int], dtype: str, cpu_threads: int, side: int
    ) -> None:
        """Loads the model. ``side``: the longest that an image may have, in pixels. Blocking; raises ``ImportError``,
        and ``OSError``, ``ValueError`` or ``RuntimeError`` of the library."""
        os.environ.setdefault(
            "HF_HUB_OFFLINE", "1"
        )  # what is missing in the folder is not fetched from elsewhere
        os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"  # read at the import; a model brings no code
        import diffusers
        import torch

        self._diffusers = diffusers
        self._torch = torch
        self._device = f"{device[0]}:{device[1]}" if device[0] == "cuda" else device[0]
        self._side = side
        if device[0] == "cpu":
            torch.set_num_threads(cpu_threads)
        kind = dtype if dtype != "auto" else ("float16" if device[0] == "cuda" else "float32")
        pipeline = diffusers.DiffusionPipeline.from_pretrained(
            folder, torch_dtype=getattr(torch, kind), local_files_only=True, use_safetensors=True
        )
        pipeline.set_progress_bar_config(disable=True)
        self._text = pipeline.to(self._device)
        scheduler = getattr(pipeline, "scheduler", None)
        self._scheduler_type: Any = type(scheduler)
        self._configuration = None if scheduler is None else dict(scheduler.config)
        self._image: Any = None
        self._fill: Any = None

    def check(self, settings: DrawSettings) -> None:
        if settings.sampler is not None and self._configuration is None:
            refuse_field("sampler", "cannot be chosen for this model")

    def draw(self, settings: DrawSettings, tell: Tell) -> Iterator[bytes]:
        pipeline, given = self._pipeline(settings)
        seed = int.from_bytes(os.urandom(4), "big") if settings.seed is None else settings.seed
        for index in range(settings.count):
            arguments = {
                **given,
                "prompt": settings.prompt,
                "num_images_per_prompt": 1,
                "num_inference_steps": settings.steps or _STEPS,
                # On the host, so that the same seed draws the same on every device.
                "generator": self._torch.Generator("cpu").manual_seed((seed + index) % 2**32),
                "callback_on_step_end": self._after_step(index, settings, tell),
            }
            if settings.negative_prompt:
                arguments["negative_prompt"] = settings.negative_prompt
            if settings.guidance is not None:
                arguments["guidance_scale"] = settings.guidance
            try:
                image = pipeline(**arguments).images[0]
            except (self._torch.OutOfMemoryError, MemoryError) as error:
                self._free()
                size = f"{given.get('width', '?')}x{given.get('height', '?')}"
                raise ServiceFault(
                    f"There is not enough memory for an image of {size}: ask for a smaller one", 503
                ) from error
            except (TypeError, ValueError) as error:
                raise ServiceFault(f"This model cannot draw that: {str(error)[:300]}") from error
            yield _encoded(image, settings.format)

    def _pipeline(self, settings: DrawSettings) -> tuple[Any, dict[str, Any]]:
        """The pipeline that fits what is given, with its sampler, and the arguments that only it has."""
        if settings.image is None:
            width, height = settings.width or self._usual, settings.height or self._usual
            return self._sampled(self._text, settings), {"width": width, "height": height}
        image, alpha = _read(settings.image, "image")
        mask = _mask(settings.mask, alpha)
        size = self._room(settings, image)
        given = {
            "image": image.convert("RGB").resize(size),
            "strength": _strength(settings),
        }
        if mask is None:
            self._image = self._image or self._made_of("AutoPipelineForImage2Image")
            return self._sampled(self._image, settings), given
        self._fill = self._fill or self._made_of("AutoPipelineForInpainting")
        given |= {"mask_image": mask.resize(size), "width": size[0], "height": size[1]}
        return self._sampled(self._fill, settings), given

    def _sampled(self, pipeline: Any, settings: DrawSettings) -> Any:
        """The pipeline with the sampler of this drawing, made anew: it holds the state of a drawing."""
        if self._configuration is not None:
            kind = self._scheduler_type
            if settings.sampler is not None:
                kind = getattr(self._diffusers, _SCHEDULERS[settings.sampler])
            more = {"use_karras_sigmas": True} if settings.schedule == "karras" else {}
            pipeline.scheduler = kind.from_config(self._configuration, **more)
        return pipeline

    @property
    def _usual(self) -> int:
        """The side of an image that the model was made for, in pixels."""
        unet = getattr(self._text, "unet", None) or getattr(self._text, "transformer", None)
        size = getattr(getattr(unet, "config", None), "sample_size", None)
        scale = getattr(self._text, "vae_scale_factor", None)
        usual = size * scale if isinstance(size, int) and isinstance(scale, int) else _SIDE
        return min(usual, self._side)

    def _room(self, settings: DrawSettings, image: Any) -> tuple[int, int]:
        """The size to draw in: as asked for, else that of the image, scaled down to what is allowed."""
        if settings.width is not None and settings.height is not None:
            return settings.width, settings.height
        scale = min(1.0, self._side / max(image.size))
        width, height = (
            max(_MULTIPLE * 8, int(side * scale) // _MULTIPLE * _MULTIPLE) for side in image.size
        )
        return width, height

    def _made_of(self, kind: str) -> Any:
        """Another pipeline over the same weights."""
        try:
            made = getattr(self._diffusers, kind).from_pipe(self._text)
        except (ValueError, TypeError, AttributeError) as error:
            raise ServiceFault(f"This model draws after texts alone: {str(error)[:200]}") from error
        made.set_progress_bar_config(disable=True)
        return made

    def _after_step(self, index: int, settings: DrawSettings, tell: Tell) -> Any:
        def after(pipeline: Any, step: int, _: Any, values: dict[str, Any]) -> dict[str, Any]:
            steps = max(getattr(pipeline, "num_timesteps", 0) or settings.steps or _STEPS, 1)
            done = step + 1
            due = settings.previews and done < steps and done % max(1, steps // (settings.previews + 1)) == 0
            preview = self._preview(pipeline, values.get("latents"), settings) if due else None
            tell(DrawProgress(index=index, percent=min(99.0, 100.0 * done / steps), preview=preview))
            return values

        return after

    def _preview(self, pipeline: Any, latents: Any, settings: DrawSettings) -> bytes | None:
        """The unfinished image, as the decoder shows it; ``None`` where the model's latents cannot be shown so."""
        if latents is None or latents.dim() != 4:
            return None
        with self._torch.no_grad():
            shown = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor, return_dict=False)[0]
        return _encoded(pipeline.image_processor.postprocess(shown)[0], settings.format)

    def _free(self) -> None:
        if self._device != "cpu":
            self._torch.cuda.empty_cache()


def _strength(settings: DrawSettings) -> float:
    """How far the image is changed: of so many steps this part is made, and one at least, or diffusers has none."""
    asked = _STRENGTH if settings.strength is None else settings.strength
    return min(1.0, max(asked, 1.000001 / (settings.steps or _STEPS)))


@attrs.frozen
class _Alpha:
    """The transparency of an image, as one where it is to be painted."""

    holes: Any
    any: bool


def _read(file: IO[bytes], name: str) -> tuple[Any, _Alpha]:
    """An image that was sent. Raises ``ServiceFault``."""
    from PIL import Image, ImageOps

    try:
        image = Image.open(file, formats=("PNG", "JPEG", "WEBP"))
        if image.width * image.height > _MOST_PIXELS:
            refuse_field(name, f"has more than {_MOST_PIXELS} pixels")
        image.load()
        image = ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ServiceFault(f"'{name}' is no PNG, JPEG or WebP image that can be read", param=name) from error
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image, _Alpha(None, False)
    holes = image.convert("RGBA").getchannel("A").point(lambda opacity: 255 - opacity)
    return image, _Alpha(holes, holes.getextrema()[1] > 0)


def _mask(file: IO[bytes] | None, of_image: _Alpha) -> Any:
    """Where to paint, white on black: the holes of the mask, else its white; without one, the holes of the image."""
    if file is None:
        return of_image.holes if of_image.any else None
    mask, holes = _read(file, "mask")
    return holes.holes if holes.any else mask.convert("L")


def _encoded(image: Any, form: str) -> bytes:
    file = io.BytesIO()
    image.save(file, form.upper())
    return file.getvalue()
