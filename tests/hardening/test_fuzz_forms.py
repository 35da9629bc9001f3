"""A form names the model that another reader of forms finds in it, or it is refused."""

from __future__ import annotations

import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.formparser import MultiPartParser

from gpustack.errors import BadRequest
from gpustack.gateway.form import read_form

from .fuzzing import fuzz

pytestmark = pytest.mark.attack("smuggling")

NAMES = st.sampled_from(
    [b'name="model"', b"name=model", b'name="file"; filename="a.wav"', b'name="model"; filename="a"',
     b"name*=utf-8''model",
     b'name="mo\\del"', b'name="model"; name="file"', b'NAME="model"', b'name = "model"',
     b'name="x;name=model"', b"name=", b""]
)  # fmt: skip
HEADS = st.tuples(
    st.sampled_from([b"Content-Disposition: form-data; ", b"content-disposition:form-data;",
    b"Content-Disposition: x; ", b"X: y; "]),
    NAMES,
    st.sampled_from([b"", b"", b"", b"\r\nContent-Type: text/plain", b"\r\n folded: x",
    b"\r\nContent-Disposition: form-data; name=\"model\"", b"\n"]),
).map(b"".join)  # fmt: skip
VALUES = st.sampled_from(
    [b"m", b"other", b"", b"--b", b"\r\n--bx", b"\r\n", b"x\r\n--b--", b"\xff", b"a" * 5000, b'{"model":"j"}']
)
PARTS = st.tuples(HEADS, st.sampled_from([b"\r\n\r\n"] * 6 + [b"\n\n", b"\r\n"]), VALUES).map(b"".join)


@fuzz(300)
@given(
    st.sampled_from([b"", b"", b"", b"preamble\r\n", b"\r\n"]),
    st.lists(PARTS, max_size=4),
    st.sampled_from([b"\r\n--b--\r\n", b"\r\n--b--", b"\r\n--b--x", b"", b"\r\n--b\r\n"]),
)
@example(b"", [b'Content-Disposition: form-data; name = "model"\r\n\r\nm'], b"\r\n--b--\r\n")
@example(
    b"",
    [b'X: y; name="model"\n\nm', b'Content-Disposition: form-data; name="model"\r\n\r\nm'],
    b"\r\n--b--\r\n",
)
def test_a_form_is_the_one_that_another_reader_sees(before: bytes, parts: list[bytes], end: bytes) -> None:
    body = before + b"--b\r\n" + b"\r\n--b\r\n".join(parts) + end
    try:
        ask = read_form(body, [(b"content-type", b"multipart/form-data; boundary=b")])
    except BadRequest as error:
        assert str(error)
        return
    form, files = MultiPartParser().parse(io.BytesIO(body), b"b", len(body))
    seen = [
        *form.getlist("model"),
        *(file.read().decode("utf-8", "replace") for file in files.getlist("model")),
    ]
    assert [one.strip() for one in seen] == [ask.model.strip()]
