"""Reads a form: files and fields of ``multipart/form-data``, of which one names the model."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

import attrs

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


def is_form(headers: Headers) -> bool:
    """Whether a body is sent as a form. Raises ``BadRequest`` unless it says once what it is."""
    return _kind(headers).lower().startswith(b"multipart/")


def read_form(body: bytes, headers: Headers) -> InferenceRequest:
    """Raises ``BadRequest`` with a sentence when the body is no form that names a model once.

    The body goes on as it came. A form that we and an engine might read differently is refused: a model named twice, a
    name in an encoding of its own, text before the first part. A JSON body is accepted too.
    """
    if not is_form(headers):
        refuse_addresses(body)
        return read_inference_request(body, completions=False)
    scanner = FormScanner(headers)
    scanner.feed(body)
    return attrs.evolve(scanner.request(), body=body)


class _Place(Enum):
    """What comes next in a form."""

    BEGINNING = auto()
    AFTER_BOUNDARY = auto()
    HEAD = auto()
    CONTENT = auto()
    END = auto()


class FormScanner:
    """Reads a form as it comes, piece by piece; keeps the first bytes of each part, which are all of a field that
    matters here."""

    def __init__(self, headers: Headers) -> None:
        """Raises ``BadRequest`` where the headers name no boundary."""
        found = _BOUNDARY.fullmatch(_kind(headers).strip())
        if found is None:
            raise BadRequest(
                f"{_UNREADABLE}: its Content-Type is not multipart/form-data with a boundary alone"
            )
        self._delimiter: bytes = b"--" + (found[1] or found[2])
        self._place = _Place.BEGINNING
        self._unread = bytearray()
        self._names: list[bytes] = []
        self._value = bytearray()
        """The beginning of the part's content, with the end of line before it."""
        self._model: bytes | None = None

    def feed(self, piece: bytes) -> None:
        """Read the next piece. Raises ``BadRequest``."""
        self._unread += piece
        while self._step():
            pass

    def request(self) -> InferenceRequest:
        """What the form asks for, once all of it has come; without its body. Raises ``BadRequest``."""
        if self._place is _Place.BEGINNING:
            raise BadRequest(f"{_UNREADABLE}: it does not begin with its boundary")
        if self._place is not _Place.END:
            raise self._torn()
        try:
            model = None if self._model is None else self._model.decode()
        except UnicodeDecodeError as error:
            raise BadRequest(f"{_UNREADABLE}: 'model' is not UTF-8") from error
        return InferenceRequest(model=model_named(model), stream=False, hide_usage=False, body=b"")

    def _step(self) -> bool:
        """Go on to the next place, if enough has come for that."""
        match self._place:
            case _Place.BEGINNING:
                return self._begin()
            case _Place.AFTER_BOUNDARY:
                return self._after_boundary()
            case _Place.HEAD:
                return self._read_head()
            case _Place.CONTENT:
                return self._read_content()
        if self._unread.strip():
            raise BadRequest(f"{_UNREADABLE}: something follows its end")
        self._unread.clear()
        return False

    def _begin(self) -> bool:
        length = len(self._delimiter)
        if len(self._unread) < length:
            return False
        if not self._unread.startswith(self._delimiter):
            raise BadRequest(f"{_UNREADABLE}: it does not begin with its boundary")
        del self._unread[:length]
        self._place = _Place.AFTER_BOUNDARY
        return True

    def _after_boundary(self) -> bool:
        if len(self._unread) < 2:
            return False
        if self._unread.startswith(b"--"):
            del self._unread[:2]
            self._place = _Place.END
            return True
        if not self._unread.startswith(b"\r\n") or len(self._names) >= _MOST_PARTS:
            raise self._torn()
        self._place = _Place.HEAD
        return True

    def _read_head(self) -> bool:
        # The end of line after the boundary belongs to the end of an empty head.
        end = self._unread.find(b"\r\n\r\n", 0, _LONGEST_HEAD)
        if end < 0:
            if len(self._unread) >= _LONGEST_HEAD:
                raise self._torn()
            return False
        head = bytes(self._unread[2:end])
        lines = head.count(b"\r\n")
        if self._delimiter in head or head.count(b"\n") != lines or head.count(b"\r") != lines:
            raise BadRequest(f"{_UNREADABLE}: the head of part {len(self._names) + 1} is not whole")
        self._names.append(_name(head))
        # In an empty part the end of the head is the beginning of the next delimiter.
        del self._unread[: end + 2]
        self._value.clear()
        self._place = _Place.CONTENT
        return True

    def _read_content(self) -> bool:
        ending = b"\r\n" + self._delimiter
        end = self._unread.find(ending)
        if end < 0:
            self._keep(max(len(self._unread) - len(ending) + 1, 0))
            return False
        self._keep(end)
        del self._unread[: len(ending)]
        self._note(self._names[-1], bytes(self._value[2:]))
        self._place = _Place.AFTER_BOUNDARY
        return True

    def _keep(self, length: int) -> None:
        """Take so many bytes of content, and keep those at its beginning."""
        room = _LONGEST_VALUE + 2 - len(self._value)
        if room > 0:
            self._value += self._unread[: min(length, room)]
        del self._unread[:length]

    def _note(self, name: bytes, value: bytes) -> None:
        refuse_address(name.decode("latin-1"), value)
        if name != b"model":
            return
        if self._model is not None:
            raise BadRequest("'model' is given twice")
        self._model = value

    def _torn(self) -> BadRequest:
        # A part counts from its head on.
        number = len(self._names) + (self._place is not _Place.CONTENT)
        return BadRequest(f"{_UNREADABLE}: part {number} is not whole")


def _kind(headers: Headers) -> bytes:
    kinds = [value for name, value in headers if name == b"content-type"]
    if len(kinds) != 1:
        raise BadRequest(f"{_UNREADABLE}: it needs one Content-Type")
    return kinds[0]


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
