"""What the image server answers. A stub stands for the pipeline here; tests/launchers/test_images.py has a real one."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from gpustack.launchers.images.__main__ import main
from gpustack.launchers.images.drawing import DrawProgress, DrawSettings, Tell
from gpustack.launchers.images.drawing_paths import DrawingPaths, DrawLimits
from gpustack.launchers.service.app import EngineService
from gpustack.launchers.service.call import ServiceFault
from gpustack.launchers.service.work import WorkQueue
from tests.launchers.asgi import AsgiAnswer, ask
from tests.launchers.engine_server import BOUNDARY, form

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"


@attrs.define
class StubPainter:
    """Draws nothing: an image is the text of what was asked for. ``steps`` steps each, and faults as told."""

    steps: int = 4
    fault: Exception | None = None
    asked: list[DrawSettings] = attrs.field(factory=list)
    files: list[bytes] = attrs.field(factory=list)
    stepped: int = 0
    gate: threading.Event = attrs.field(factory=threading.Event)

    def check(self, settings: DrawSettings) -> None:
        self.asked.append(settings)

    def draw(self, settings: DrawSettings, tell: Tell) -> Iterator[bytes]:
        self.files += [file.read() for file in (settings.image, settings.mask) if file is not None]
        for index in range(settings.count):
            for step in range(1, self.steps + 1):
                if self.fault is not None and step == self.steps:
                    raise self.fault
                self.stepped += 1
                preview = b"preview" if settings.previews and step < self.steps else None
                tell(DrawProgress(index=index, percent=99.0 * step / self.steps, preview=preview))
            yield f"{settings.prompt} {index}".encode()


@pytest.fixture
def painter() -> StubPainter:
    return StubPainter()


@pytest.fixture
def work() -> WorkQueue:
    return WorkQueue(1, 8)


@pytest.fixture
def service(painter: StubPainter, work: WorkQueue) -> EngineService:
    paths = DrawingPaths(painter, work, DrawLimits(images=3, side=1024))
    return EngineService(model={"id": "m"}, key=None, routes=paths.routes, work=work, prefix="images:")


async def draw(service: EngineService, **fields: Any) -> AsgiAnswer:
    return await ask(service, GENERATIONS, json.dumps({"prompt": "a lighthouse", **fields}).encode())


async def edit(service: EngineService, *files: tuple[str, bytes], **fields: Any) -> AsgiAnswer:
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    return await ask(service, EDITS, form(files, {"prompt": "at night", **fields}), headers=headers)


def image_of(entry: dict[str, Any]) -> bytes:
    return base64.b64decode(entry["b64_json"])


async def test_all_images_come_at_once(service: EngineService, work: WorkQueue) -> None:
    answer = (await draw(service, n=3)).json
    assert [image_of(one) for one in answer["data"]] == [
        b"a lighthouse 0",
        b"a lighthouse 1",
        b"a lighthouse 2",
    ]
    assert isinstance(answer["created"], int)
    assert "images:images_total 3" in work.metrics("images:")
    as_url = (await draw(service, response_format="url", output_format="webp")).json["data"][0]["url"]
    assert as_url == "data:image/webp;base64," + base64.b64encode(b"a lighthouse 0").decode()


async def test_names_of_both_kinds_are_read(service: EngineService, painter: StubPainter) -> None:
    fields = {
        "size": "512x768",
        "seed": 7,
        "sample_steps": 3,
        "cfg_scale": 1.5,
        "negative_prompt": "people",
        "strength": 0.5,
        "quality": "hd",
        "style": "vivid",
        "user": "somebody",
    }
    assert (await draw(service, sampler="euler_a", schedule="karras", **fields)).status == 200
    assert (await draw(service, sample_method="heun", sampling_steps=5, guidance=2)).status == 200
    first, second = painter.asked
    assert (first.width, first.height, first.seed, first.steps, first.guidance) == (512, 768, 7, 3, 1.5)
    assert (first.negative_prompt, first.strength, first.sampler) == ("people", 0.5, "euler_a")
    assert first.schedule == "karras"
    assert (second.sampler, second.steps, second.guidance, second.width) == ("heun", 5, 2.0, None)


async def test_a_stream_tells_how_far_it_is_and_ends_with_the_image(service: EngineService) -> None:
    answer = await draw(service, stream=True, n=2)
    assert answer.headers["content-type"] == "text/event-stream"
    *chunks, done = answer.events
    assert done == "[DONE]"
    data = [chunk["data"][0] for chunk in chunks]
    assert {one["object"] for one in data} == {"image.chunk"}
    for index in (0, 1):
        mine = [one for one in data if one["index"] == index]
        progress = [one["progress"] for one in mine]
        assert progress == sorted(progress)
        assert progress[-1] == 100
        assert [image_of(one) for one in mine if "b64_json" in one] == [f"a lighthouse {index}".encode()]


async def test_a_stream_shows_images_before_they_are_finished(service: EngineService) -> None:
    for asked in ({"stream_options": {"preview": True}}, {"partial_images": 2}):
        *chunks, _ = (await draw(service, stream=True, **asked)).events
        shown = [image_of(one) for chunk in chunks for one in chunk["data"] if "b64_json" in one]
        assert shown == [b"preview", b"preview", b"preview", b"a lighthouse 0"]


async def test_an_edit_has_an_image_and_a_mask(service: EngineService, painter: StubPainter) -> None:
    answer = await edit(service, ("image", b"image"), ("mask", b"mask"), size="256x256", n="2")
    assert [image_of(one) for one in answer.json["data"]] == [b"at night 0", b"at night 1"]
    assert painter.files == [b"image", b"mask"]
    streamed = await edit(
        service, ("image[]", b"image"), stream="true", stream_options_preview="true", strength="0.3"
    )
    assert len(streamed.events) == 6
    assert painter.asked[-1].strength == 0.3
    assert painter.asked[-1].previews


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"prompt": ""}, "'prompt' must say what to draw"),
        ({"prompt": 7}, "'prompt' must be a text"),
        ({"prompt": "a" * 20_000}, "'prompt' has 20000 characters"),
        ({"n": 4}, "'n' must be a number from 1 to 3"),
        ({"n": 1.5}, "'n' must be a whole number"),
        ({"n": True}, "'n' must be a number"),
        ({"size": "large"}, "'size' must be WIDTHxHEIGHT"),
        ({"size": "100x100"}, "multiples of 8"),
        ({"size": "16x512"}, "sides of 64 to 1024"),
        ({"size": "512x4096"}, "sides of 64 to 1024"),
        ({"sample_steps": 1000}, "'sample_steps' must be a number from 1 to 200"),
        ({"steps": 0}, "'steps' must be a number from 1 to 200"),
        ({"seed": -1}, "'seed' must be a number"),
        ({"sampler": "magic"}, "'sampler' must be one of euler, euler_a"),
        ({"schedule_method": "magic"}, "'schedule_method' must be one of"),
        ({"response_format": "file"}, "'response_format' must be one of b64_json, url"),
        ({"output_format": "gif"}, "'output_format' must be one of png"),
        ({"control_image": "abc"}, "'control_image' is not served here"),
        ({"stream_options": "all"}, "'stream_options' must be an object"),
        ({"stream": "maybe"}, "'stream' must be true or false"),
    ],
)
async def test_what_is_wrong_is_told_in_a_sentence(
    service: EngineService, painter: StubPainter, fields: dict[str, Any], sentence: str
) -> None:
    answer = await draw(service, **fields)
    assert answer.status == 400
    assert sentence in answer.fault
    assert painter.asked == []


async def test_an_edit_without_an_image_is_refused(service: EngineService) -> None:
    assert "'image' is missing" in (await edit(service)).fault
    assert "'image' is there more than once" in (await edit(service, ("image", b"1"), ("image", b"2"))).fault
    assert (
        "'mask' is there more than once"
        in (await edit(service, ("image", b"1"), ("mask", b"2"), ("mask", b"3"))).fault
    )
    assert "needs a form" in (await ask(service, EDITS, b"{}")).fault


async def test_a_want_of_memory_is_told_and_the_next_one_is_drawn(
    service: EngineService, painter: StubPainter, capsys: pytest.CaptureFixture[str]
) -> None:
    painter.fault = ServiceFault(
        "There is not enough memory for an image of 512x512: ask for a smaller one", 503
    )
    assert ((await draw(service)).status, (await draw(service)).fault[:28]) == (
        503,
        "There is not enough memory f",
    )
    painter.fault = RuntimeError("a kernel failed\nwith a long story")
    broken = await draw(service)
    assert (broken.status, broken.fault) == (500, "The engine failed at this request: a kernel failed")
    assert "a long story" in capsys.readouterr().err, "the log has all of it"
    painter.fault = None
    assert (await draw(service)).status == 200


async def test_a_fault_within_a_stream_is_its_last_event(
    service: EngineService, painter: StubPainter
) -> None:
    painter.fault = ServiceFault("There is not enough memory", 503)
    *chunks, last = (await draw(service, stream=True)).events
    assert [chunk["data"][0]["object"] for chunk in chunks] == ["image.chunk"] * 3
    assert last["error"]["message"] == "There is not enough memory"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_ends_the_drawing_at_the_next_step(
    service: EngineService, painter: StubPainter, work: WorkQueue, stream: bool
) -> None:
    painter.steps = 10_000_000  # far more than are drawn before the client leaves
    if stream:
        await ask(service, GENERATIONS, b'{"prompt": "a", "stream": true}', leave_after=3)
    else:
        with trio.move_on_after(0.2):
            await draw(service)
    assert 0 < painter.stepped < 10_000_000
    assert (work.running, work.waiting) == (0, 0)
    painter.steps = 2
    assert (await draw(service)).status == 200


async def test_one_draws_and_others_wait_their_turn(
    service: EngineService, painter: StubPainter, work: WorkQueue
) -> None:
    answers: list[AsgiAnswer] = []

    async def one(number: int) -> None:
        answers.append(await draw(service, seed=number))

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(one, number)
    assert [answer.status for answer in answers] == [200] * 5
    assert (work.running, work.waiting) == (0, 0)


@pytest.mark.parametrize("name", ["pipeline.py", "unet/my_unet.PY"])
def test_a_model_that_brings_code_is_not_started(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / name).write_text("raise SystemExit(7)")
    assert main(["--model", str(tmp_path)]) == 1
    assert "holds code (*.py); models that bring code are not run" in capfd.readouterr().err
