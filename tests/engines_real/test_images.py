"""The image server with real diffusers on a tiny Stable Diffusion: what it draws is decoded and compared.

It is asked at its own port, and once through a daemon.
"""

from __future__ import annotations

import base64
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.child import ROOT, environment
from tests.daemon import Daemon, daemon
from tests.engines_real.diffusers_cpu import diffusers_packages, diffusers_python, make_tiny_diffusion
from tests.launchers.engine_server import EngineServer, serving

pytestmark = pytest.mark.engines

PROGRAM = "gpustack.launchers.images"
GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
QUICK = {"prompt": "a lighthouse", "size": "64x64", "sample_steps": 4, "seed": 7}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_diffusion(tmp_path_factory.mktemp("models") / "tiny-sd")


@pytest.fixture(scope="module")
def server(pipeline: Path) -> Iterator[EngineServer]:
    arguments = ("--model", str(pipeline), "--max-side", "256", "--cpu-threads", "1")
    with serving(PROGRAM, *arguments, python=diffusers_python()) as running:
        yield running


def drawn(server: EngineServer, **fields: Any) -> list[bytes]:
    answer = server.post(GENERATIONS, {**QUICK, **fields})
    assert answer.status == 200, answer.body
    return [base64.b64decode(one["b64_json"]) for one in answer.json["data"]]


def size_of(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def png(width: int, height: int, pixel: bytes) -> bytes:
    """An image of one colour, with or without transparency (four or three bytes a pixel)."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    head = struct.pack(">IIBBBBB", width, height, 8, 6 if len(pixel) == 4 else 2, 0, 0, 0)
    rows = (b"\0" + pixel * width) * height
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_the_same_seed_draws_the_same_again(server: EngineServer) -> None:
    first, second = drawn(server, n=2)
    assert first != second
    assert size_of(first) == (64, 64)
    assert drawn(server) == [first]
    assert drawn(server, seed=8) == [second], "the second image has the next seed"
    assert drawn(server, prompt="a cat") != [first]
    assert size_of(drawn(server, size="128x64")[0]) == (128, 64)
    usual = server.post(GENERATIONS, {"prompt": "a", "steps": 2}).json["data"][0]["b64_json"]
    assert size_of(base64.b64decode(usual)) == (64, 64), "as the model was made for"


def test_every_sampler_and_format_draws(server: EngineServer) -> None:
    images = {
        sampler: drawn(server, sampler=sampler)[0]
        for sampler in ("euler", "euler_a", "heun", "dpm++2m", "lcm", "ddim")
    }
    assert len(set(images.values())) >= 4
    drawn(server, sampler="euler", schedule="karras")
    assert drawn(server, output_format="jpeg")[0][:3] == b"\xff\xd8\xff"
    assert drawn(server, output_format="webp")[0][8:12] == b"WEBP"
    assert images["ddim"] == drawn(server)[0], "the model's own, and none is left from the drawing before"


def test_a_stream_shows_it_unfinished_and_ends_with_the_same_image(server: EngineServer) -> None:
    body = json.dumps({**QUICK, "stream": True, "partial_images": 2}).encode()
    answer = server.ask(GENERATIONS, body)
    lines = [line.removeprefix("data: ") for line in answer.body.decode().split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    data = [json.loads(line)["data"][0] for line in lines]
    assert [one["progress"] for one in data] == sorted(one["progress"] for one in data)
    shown = [base64.b64decode(one["b64_json"]) for one in data if "b64_json" in one]
    assert len(shown) > 1
    assert {size_of(one) for one in shown} == {(64, 64)}
    assert [shown[-1]] == drawn(server)
    assert shown[0] != shown[-1]


def test_an_image_is_changed_as_much_as_was_asked_for(server: EngineServer) -> None:
    red = png(64, 64, b"\xff\0\0")
    fields = {"prompt": "at night", "sample_steps": "4", "seed": "7"}

    def edited(*files: tuple[str, bytes], **more: str) -> bytes:
        answer = server.send_form(EDITS, *files, **{**fields, **more})
        assert answer.status == 200, answer.body
        return base64.b64decode(answer.json["data"][0]["b64_json"])

    little, much = edited(("image", red), strength="0.3"), edited(("image", red), strength="0.9")
    assert little != much
    assert size_of(little) == (64, 64)
    half = png(64, 64, b"\xff\xff\xff\0")
    assert size_of(edited(("image", red), ("mask", half), strength="0.5")) == (64, 64)
    assert size_of(edited(("image", red), size="128x128", strength="0.5")) == (128, 128)
    assert size_of(edited(("image", red), strength="0")) == (64, 64), "one step at least"


@pytest.mark.parametrize("content", [b"", b"GIF89a" + bytes(100), b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_what_is_no_image_is_refused(server: EngineServer, content: bytes) -> None:
    answer = server.send_form(EDITS, ("image", content), prompt="a")
    assert answer.status == 400
    assert answer.fault == "'image' is no PNG, JPEG or WebP image that can be read"


def test_a_pipeline_that_is_broken_is_told(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(
        '{"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0"}'
    )
    for folder, sentence in (
        (tmp_path, "the pipeline cannot be loaded"),
        (ROOT, "holds no pipeline of diffusers"),
    ):
        ended = subprocess.run(
            [diffusers_python(), "-m", PROGRAM, "--model", str(folder)],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert (ended.returncode, sentence in ended.stderr) == (1, True), ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_daemon_serves_it_through_its_gateway(pipeline: Path, tmp_path: Path) -> None:
    """Deployed as any model, on a worker that has the packages of the extra."""
    ours = [path for path in sys.path if path.endswith("site-packages")]
    packages = os.pathsep.join((*ours, *diffusers_packages()))
    with daemon(tmp_path / "data", env={"PYTHONPATH": packages}) as one:
        body = {"name": "painter", "source": "local_path", "local_path": str(pipeline)}
        parameters = ["--max-side=256"]
        status, model = one.call("POST", "/v1/models", {**body, "backend_parameters": parameters})
        assert status == 200, model
        one.running("painter", within=300)
        (model,) = one.call("GET", "/v1/models")[1]["items"]
        assert (model["backend"] or "diffusers", model["categories"]) == ("diffusers", ["image"])
        key = one.call("POST", "/v1/api-keys", {"name": "tests"})[1]["value"]
        with openai.OpenAI(base_url=f"{one.url}/v1", api_key=key, max_retries=0, timeout=300) as client:
            more = {"sample_steps": 4, "seed": 7}
            made = client.images.generate(
                model="painter",
                prompt="a lighthouse",
                size="128x64",
                n=2,
                extra_body=more,  # type: ignore[call-overload]
            )
            images = [base64.b64decode(image.b64_json) for image in made.data]
            assert [size_of(image) for image in images] == [(128, 64)] * 2
            assert len(set(images)) == 2
            red = ("red.png", png(64, 64, b"\xff\0\0"))
            changed = client.images.edit(model="painter", image=red, prompt="at night", extra_body=more)
            assert changed.data is not None
            assert size_of(base64.b64decode(changed.data[0].b64_json or "")) == (64, 64)
            with pytest.raises(openai.BadRequestError, match="no PNG, JPEG or WebP image"):
                client.images.edit(model="painter", image=("a.png", b"no image"), prompt="at night")
            events = streamed(one, key, {**QUICK, "model": "painter", "stream": True, "partial_images": 1})
            assert size_of(base64.b64decode(events[-1]["data"][0]["b64_json"])) == (64, 64)
            counted = lambda: [  # noqa: E731
                row
                for row in one.call("GET", "/v1/dashboard/usage")[1]["items"]
                if row.get("operation") == "image_generation"
            ]
            assert one.until(counted, "the usage of images")


def streamed(one: Daemon, key: str, body: dict[str, Any]) -> list[Any]:
    """The events of a stream, which ends as it should."""
    answer = httpx.post(
        f"{one.url}{GENERATIONS}", json=body, headers={"authorization": f"Bearer {key}"}, timeout=300
    )
    assert answer.status_code == 200, answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]
