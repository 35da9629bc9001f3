"""Nothing is fetched for a request: an address in it would be asked for from inside our network, or from a disk."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.errors import BadRequest
from gpustack.gateway.media import refuse_address, refuse_addresses

from .conftest import MakeWorld
from .test_inference import StartEngine
from .world import chat, error_of

PICTURE = "data:image/png;base64,iVBORw0KGgo="
PLACES = (
    "http://10.0.0.1/admin",
    "https://intranet/",
    "HTTP://127.0.0.1:40000/slots",
    " file:///etc/passwd",
    "ftp://h/x",
)

pytestmark = pytest.mark.attack("ssrf")


def part(kind: str, value: object) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "?"}, {"type": kind, kind: value}]}
        ]
    }


def forms(place: str) -> list[dict[str, Any]]:
    """The ways in which the APIs of engines are told an address."""
    return [
        part("image_url", {"url": place}),
        part("image_url", {"detail": "low", "url": place}),
        part("image_url", place),
        part("audio_url", {"url": place}),
        part("video_url", {"url": place}),
        part("image", place),
        part("video", [PICTURE, place]),
        part("image", {"url": place}),
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": place}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": place}]}]},
        {"tools": [{"type": "mcp", "server_url": place}], "input": "x"},
        {"messages": [{"content": [{"type": "image", "source": {"type": "url", "url": place}}]}]},
        {"messages": [{"content": [{"type": "document", "source": {"type": "url", "url": place}}]}]},
        {"input": [{"image": place}]},
        {"documents": [{"content": [{"type": "image_url", "image_url": {"url": place}}]}]},
        {"images": [[PICTURE], [{"a": 1}, place]], "prompt": "x"},
        {"image_data": [place], "text": "x"},
        {"images": [{"images": [{"images": place}]}]},
        {"mcp_servers": [{"type": "url", "name": "x", "url": place}], "messages": []},
        {"messages": [{"content": [{"type": "tool_result", "content": [{"source": {"url": place}}]}]}]},
        {"prompt": "x", "mask": place},
        {"prompt": "x", "input_reference": {"type": "image", "url": place}},
    ]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("number", range(len(forms(""))))
def test_no_address_passes(place: str, number: int) -> None:
    body = forms(place)[number]
    for written in (json.dumps(body), json.dumps(body, indent=1), json.dumps(body).replace("/", "\\/")):
        with pytest.raises(BadRequest, match="send the content itself"):
            refuse_addresses(written.encode())


@pytest.mark.parametrize("number", range(len(forms(""))))
def test_content_passes(number: int) -> None:
    body = forms(PICTURE)[number]
    for written in (json.dumps(body), json.dumps(body).replace("/", "\\/"), json.dumps(body, indent=1)):
        refuse_addresses(written.encode())


SCHEMAS = (
    {"image_url": {"type": ["string", "null"]}},
    {"image_url": {"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]}},
    {"image": {"type": "string", "examples": ["nginx:latest", "https://example.org/a.png"]}},
    {"server_url": {"enum": ["https://a.example", "https://b.example"]}},
    {"source": {"type": "object", "default": {"url": "https://example.org"}}},
)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_what_a_tool_takes_and_an_answer_looks_like_is_no_content(schema: dict[str, Any]) -> None:
    """Strict schemas of stock clients write types and required members as lists of texts."""
    parameters = {"type": "object", "properties": schema, "required": [*schema]}
    for body in (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}]},
        {"tools": [{"type": "function", "name": "f", "parameters": parameters}], "input": "x"},
        {"tools": [{"name": "f", "input_schema": parameters}], "messages": []},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": parameters}}},
        {"text": {"format": {"type": "json_schema", "schema": parameters}}, "input": "x"},
    ):
        refuse_addresses(json.dumps(body).encode())


@pytest.mark.parametrize(
    "given", [{"image": "nginx:latest"}, {"server_url": "https://h/"}, {"source": {"url": "https://h/x.git"}}]
)
def test_what_a_model_gave_to_a_tool_is_no_content(given: dict[str, Any]) -> None:
    """It stays in the conversation: a refusal would end that."""
    call = {"type": "tool_use", "id": "1", "name": "f", "input": given}
    for block in (call, dict(reversed(call.items()))):
        refuse_addresses(json.dumps({"messages": [{"role": "assistant", "content": [block]}]}).encode())


@pytest.mark.parametrize(
    "body",
    [
        {"type": "tool_use", "input": [{"content": [{"type": "input_image", "image_url": "http://h/"}]}]},
        {"messages": [{"content": [{"type": "image", "input": {"image_url": "http://h/"}}]}]},
        {"messages": [{"content": [{"type": "tool_use", "image_url": "http://h/", "input": {}}]}]},
        {"input": [{"image": " " * 100 + "http://h/"}]},
        {"input": [{"image": "\n" * 100 + "http://h/"}]},
        {"messages": [{"content": [{"source": {"image_url": ["http://h/"]}}]}]},
    ],
)
def test_nothing_that_looks_like_them_passes(body: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        refuse_addresses(json.dumps(body).encode())


@pytest.mark.parametrize("name", ["image", "image[]", "image[0]", "mask"])
@pytest.mark.parametrize(
    "file", [b"\x89PNG\r\n\x1a\n" + bytes(12) + b"\\", b"\\" * 9, b'\xff\xd8\xff\xe0\x00\x10JFIF\\"', b"RIFF"]
)
def test_a_file_in_a_form_is_content_whatever_its_bytes(name: str, file: bytes) -> None:
    refuse_address(name, file)


@pytest.mark.parametrize("path", ["/etc/passwd", "pictures/a.png", "../x"])
def test_no_path_passes_where_an_address_is_expected(path: str) -> None:
    for body in (part("image_url", {"url": path}), part("image_url", path)):
        with pytest.raises(BadRequest):
            refuse_addresses(json.dumps(body).encode())


@pytest.mark.parametrize(
    "written",
    [
        rb'{"messages":[{"content":[{"type":"image_url","image\u005furl":{"url":"http://h/"}}]}]}',
        rb'{"messages":[{"content":[{"image_url":{"\u0075rl":"http://h/"}}]}]}',
        rb'{"messages":[{"content":[{"image_url":{"url":"\u0068ttp://h/"}}]}]}',
        rb'{"input":[{"image":"\u0068ttp://h/"}]}',
        rb'{"input":[{"\u0069mage":"http://h/"}]}',
    ],
)
def test_escapes_hide_nothing(written: bytes) -> None:
    with pytest.raises(BadRequest):
        refuse_addresses(written)


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": 'see "image_url": "http://h/" and https://example.org'}]},
        {"messages": [{"role": "user", "content": "what is an image, a video, a source?"}]},
        {"metadata": {"url": "https://example.org"}, "prompt": "x", "source": "https://example.org"},
        {"tools": [{"parameters": {"url": {"type": "string"}, "image_url": {"type": "string"}}}]},
        {"messages": [{"url_citation": {"url": "https://example.org"}}, part("image_url", {"url": PICTURE})]},
        {"input": [{"image": "/9j/4AAQSkZJRg=="}]},
        {
            "messages": [
                {"content": [{"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}]}
            ]
        },
        {"image": None, "image_url": None, "prompt": "\u00e9"},
    ],
)
def test_what_is_no_address_for_an_engine_passes(body: dict[str, Any]) -> None:
    refuse_addresses(json.dumps(body).encode())


def test_fields_of_a_form_are_looked_at_too() -> None:
    refuse_address("image", b"\x89PNG\r\n")
    refuse_address("prompt", b"http://example.org")
    for name in ("image", "image[]", "image[0]", "url", "image_url", "mask", "Mask[]"):
        with pytest.raises(BadRequest, match="send the content itself"):
            refuse_address(name, b"http://10.0.0.1/")


def test_hostile_bodies_take_time_in_proportion_to_their_size() -> None:
    for piece in (b'"images":[', b'\\"', b'"image_url":{', b'"\\u0041', b"["):
        refuse_addresses(b'{"a":"_url\\"",' + piece * ((4 << 20) // len(piece)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | st.sampled_from(["image", "url", "x"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.lists(json_values, max_size=4), st.integers(0, 4))
def test_an_address_is_found_wherever_it_stands(values: list[Any], place: int) -> None:
    values.insert(place, part("image_url", {"url": "http://10.0.0.1/"}))
    with pytest.raises(BadRequest):
        refuse_addresses(json.dumps({"messages": values, "z": values}).encode())


async def test_a_request_with_an_address_is_answered_in_words_and_reaches_no_engine(
    make_world: MakeWorld, fake_engine: StartEngine
) -> None:
    world, engine = await make_world(), fake_engine()
    await world.deploy("m", engine.port)
    for path in ("/v1/chat/completions", "/v1/embeddings", "/v1/messages", "/v1/responses"):
        answer = await world.ask("m", path, **part("image_url", {"url": "http://127.0.0.1:1/"}))
        assert answer.status == 400, path
        assert b"data: URL" in answer.body
    assert "data: URL" in error_of(await world.send(chat("m", image="file:///etc/passwd")))["message"]
    assert engine.seen()["requests"] == 0
    sound = {**json.loads(chat("m")), **part("image_url", {"url": PICTURE})}
    assert (await world.send(json.dumps(sound).encode())).status == 200
