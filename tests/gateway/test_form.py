"""Forms name their model once, in a way that no other reader of them can take for another."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.errors import BadRequest
from gpustack.gateway.form import read_form

KIND = b"multipart/form-data; boundary=b"


def part(disposition: str, value: bytes = b"tiny", *, more: str = "") -> bytes:
    return b"--b\r\ncontent-disposition: form-data; %b\r\n%b\r\n%b\r\n" % (
        disposition.encode(),
        more.encode(),
        value,
    )


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b--\r\n"


MODEL = part('name="model"')
FILE = part('name="file"; filename="a.wav"', bytes(range(256)), more="content-type: audio/wav\r\n")


@pytest.mark.parametrize(
    "body",
    [
        form(MODEL),
        form(FILE, MODEL, part('name="language"', b"en")),
        form(part("name=model")),
        form(part('filename="model"; NAME="model"')),
        form(part('name="file"; filename="name=\\"model\\""', b"x"), MODEL),
        form(
            part('name="prompt"', b'--c\r\ncontent-disposition: form-data; name="model"\r\n\r\nother'), MODEL
        ),
    ],
)
@pytest.mark.parametrize("kind", [KIND, b'Multipart/Form-Data; boundary="b"'])
def test_the_model_is_found_and_the_body_untouched(body: bytes, kind: bytes) -> None:
    ask = read_form(body, [(b"content-type", kind)])
    assert (ask.model, ask.stream, ask.hide_usage) == ("tiny", False, False)
    assert ask.body is body


def test_json_is_taken_too() -> None:
    assert read_form(b'{"model": "tiny"}', [(b"content-type", b"application/json")]).model == "tiny"


@pytest.mark.attack("smuggling")
@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (form(MODEL, MODEL), KIND, "given twice"),
        (form(MODEL, part("name=model", b"other")), KIND, "given twice"),
        (form(FILE), KIND, "Missing 'model'"),
        (form(part('name="model"', b"")), KIND, "Missing 'model'"),
        (form(part("name*=utf-8''model")), KIND, "encoding of its own"),
        (form(part('name="x"; name="model"')), KIND, "no plain name"),
        (form(part('name="mo\\del"')), KIND, "no plain name"),
        (
            form(part('name="model"', more='content-disposition: form-data; name="x"\r\n')),
            KIND,
            "does not say once",
        ),
        (form(part('name="x"', more=' name="model"\r\n')), KIND, "does not say once"),
        (form(part('name="model"', b"\xff")), KIND, "not UTF-8"),
        (form(part('name="model"', b"a" * 2000)), KIND, "longer than"),
        (b"before\r\n" + form(MODEL), KIND, "does not begin"),
        (form(MODEL)[:-9], KIND, "not whole"),
        (form(MODEL) + MODEL, KIND, "follows its end"),
        (MODEL + b"--bx\r\n", KIND, "not whole"),
        (b"--b\r\n" + b"x" * 20000, KIND, "not whole"),
        (form(*[part('name="x"')] * 1001), KIND, "not whole"),
        (form(MODEL), b"multipart/form-data", "boundary"),
        (form(MODEL), b"multipart/mixed; boundary=b", "boundary"),
        (form(MODEL), b"multipart/form-data; boundary=a; boundary=b", "boundary"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(body: bytes, kind: bytes, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        read_form(body, [(b"content-type", kind)])


def test_a_body_of_two_kinds_or_of_none_is_refused() -> None:
    for kinds in ([], [(b"content-type", KIND)] * 2):
        with pytest.raises(BadRequest, match="one Content-Type"):
            read_form(form(MODEL), kinds)


@given(st.lists(st.sampled_from([b"--b", b"\r\n", b"--", MODEL, FILE, b'name="model"', b"x"]), max_size=12))
def test_whatever_comes_is_a_model_or_a_refusal(pieces: list[bytes]) -> None:
    with contextlib.suppress(BadRequest):
        # what stands between the text and the next boundary belongs to it
        assert read_form(b"".join(pieces), [(b"content-type", KIND)]).model.startswith("tiny")
