"""Reads a form: files and fields of ``multipart/form-data``, of which one names the model."""

from __future__ import annotations

import re
from typing import Final

from gpustack.errors import BadRequest
from gpustack.gateway.media import refuse_address, refuse_addresses
from gpustack.gateway.request import InferenceRequest, model_named, read_inference_request
from gpustack.http1.fields import Headers

_MOST_PARTS: Final = 1000
_LONGEST_HEAD: Final = 16 << 10
_LONGEST_VALUE: Final = 4096
_BOUNDARY: Final = re.compile(
    rb'multipart/form-data\s*;\s*boundary=(?:"([^"\\]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE
)
_PARAMETER: Final = re.compile(rb';[ \t]*+([^\s=;"]++)=("(?:[^"\\]|\\.)*+"|[^\s;"]++)')
_DISPOSITION: Final = re.compile(rb"form-data(?:%b)*+" % _PARAMETER.pattern, re.IGNORECASE)
"""As every client writes it. Readers differ in what they make of a space where none is usual."""
_UNREADABLE: Final = "We could not parse the form of your request"


def read_form(body: bytes, headers: Headers) -> InferenceRequest:
    """Raises ``BadRequest`` with a sentence when the body is no form that names a model once.

    The body goes on as it came. A form that we and an engine might read differently is refused: a model named twice, a
    name in an encoding of its own, text before the first part. A JSON body is accepted too.
    """
    kinds = [value for name, value in headers if name == b"content-type"]
    if len(kinds) != 1:
        raise BadRequest(f"{_UNREADABLE}: it needs one Content-Type")
    if not kinds[0].lower().startswith(b"multipart/"):
        refuse_addresses(body)
        return read_inference_request(body, completions=False)
    found = _BOUNDARY.fullmatch(kinds[0].strip())
    if found is None:
        raise BadRequest(f"{_UNREADABLE}: its Content-Type is not multipart/form-data with a boundary alone")
    fields = _fields(body, b"--" + (found[1] or found[2]))
    for name, value in fields:
        refuse_address(name.decode("latin-1"), value)
    named = [value for name, value in fields if name == b"model"]
    if len(named) > 1:
        raise BadRequest("'model' is given twice")
    try:
        model = named[0].decode() if named else None
    except UnicodeDecodeError as error:
        raise BadRequest(f"{_UNREADABLE}: 'model' is not UTF-8") from error
    return InferenceRequest(model=model_named(model), stream=False, hide_usage=False, body=body)


def _fields(body: bytes, delimiter: bytes) -> list[tuple[bytes, bytes]]:
    """The name of each part, and the first bytes of its content: all that matters of a field."""
    if not body.startswith(delimiter):
        raise BadRequest(f"{_UNREADABLE}: it does not begin with its boundary")
    fields: list[tuple[bytes, bytes]] = []
    at = len(delimiter)
    while body[at : at + 2] != b"--":
        head_end = body.find(b"\r\n\r\n", at, at + _LONGEST_HEAD)
        end = -1 if head_end < 0 else body.find(b"\r\n" + delimiter, head_end + 2)
        if body[at : at + 2] != b"\r\n" or end < 0 or len(fields) >= _MOST_PARTS:
            raise BadRequest(f"{_UNREADABLE}: part {len(fields) + 1} is not whole")
        head = body[at + 2 : head_end]
        lines = head.count(b"\r\n")
        if delimiter in head or head.count(b"\n") != lines or head.count(b"\r") != lines:
            raise BadRequest(f"{_UNREADABLE}: the head of part {len(fields) + 1} is not whole")
        # In an empty part the end of the head is the beginning of the next delimiter.
        start = min(head_end + 4, end)
        fields.append((_name(head), body[start : min(end, start + _LONGEST_VALUE)]))
        at = end + 2 + len(delimiter)
    if body[at + 2 :].strip():
        raise BadRequest(f"{_UNREADABLE}: something follows its end")
    return fields


def _name(head: bytes) -> bytes:
    fields = [line.partition(b":") for line in head.split(b"\r\n")]
    dispositions = [
        value.strip() for name, _, value in fields if name.strip().lower() == b"content-disposition"
    ]
    if len(dispositions) != 1 or any(line[:1] in (b" ", b"\t") for line in head.split(b"\r\n")):
        raise BadRequest(f"{_UNREADABLE}: a part does not say once what it is")
    if _DISPOSITION.fullmatch(dispositions[0]) is None:
        raise BadRequest(f"{_UNREADABLE}: a part does not say as usual what it is")
    names = []
    for found in _PARAMETER.finditer(dispositions[0]):
        key = found[1].lower()
        if key == b"name*":
            raise BadRequest(f"{_UNREADABLE}: the name of a part is in an encoding of its own")
        if key == b"name":
            names.append(found[2].strip(b'"'))
    if len(names) != 1 or b"\\" in names[0]:
        raise BadRequest(f"{_UNREADABLE}: a part has no plain name")
    return names[0]
