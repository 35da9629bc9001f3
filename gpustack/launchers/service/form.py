"""Forms with files: read as they arrive, files into temporary files, never as a whole in memory."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import IO, Any

import attrs
import trio
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from .call import ServiceCall, ServiceFault

MOST_PARTS = 100
LONGEST_FIELD = 256 << 10
"""Bytes of a field that is no file."""
LARGEST_BODY = 512 << 20
"""Bytes. The gateway lets less pass."""
_BUFFER = 1 << 20


@attrs.define(eq=False)
class UploadedFile:
    """A file of a form: an unnamed temporary file that only we can read, gone when it is closed."""

    name: str
    file: IO[bytes] = attrs.field(repr=False)
    size: int = 0


@attrs.define(eq=False)
class UploadedForm:
    """The fields of a form by name (the last of equal ones), lists for names that end in ``[]``, and its files."""

    fields: dict[str, Any] = attrs.field(factory=dict)
    files: dict[str, list[UploadedFile]] = attrs.field(factory=dict)

    def file(self, name: str) -> UploadedFile:
        """The one file of that name. Raises ``ServiceFault``."""
        found = self.files.get(name, [])
        if len(found) != 1:
            what = "is missing: send a form with it as a file" if not found else "is there more than once"
            raise ServiceFault(f"'{name}' {what}", param=name)
        return found[0]


@asynccontextmanager
async def uploaded_form(call: ServiceCall, limit: int = LARGEST_BODY) -> AsyncIterator[UploadedForm]:
    """The form of a request. Its files are closed, and so deleted, when the block is left.

    Raises ``ServiceFault`` where it is no form, or has too many or too long parts.
    """
    kind, options = parse_options_header((call.header(b"content-type") or b"").decode("latin-1"))
    boundary = options.get("boundary", "").encode("latin-1", "replace")
    if kind != "multipart/form-data" or not 0 < len(boundary) <= 200:
        raise ServiceFault("This needs a form: Content-Type: multipart/form-data with a boundary")
    with ExitStack() as opened:
        yield await _read(call, MultipartDecoder(boundary, _BUFFER, max_parts=MOST_PARTS), opened, limit)


async def _read(call: ServiceCall, decoder: MultipartDecoder, opened: ExitStack, limit: int) -> UploadedForm:
    form = UploadedForm()
    part: Field | File | None = None
    target: UploadedFile | bytearray = bytearray()
    try:
        async for piece in _pieces(call, limit):
            decoder.receive_data(piece)
            while not isinstance(event := decoder.next_event(), (NeedData, Epilogue)):
                if isinstance(event, (Field, File)):
                    part = event
                    target = _file(event, opened) if isinstance(event, File) else bytearray()
                elif isinstance(event, Data) and part is not None:
                    await _put(target, event.data)
                    if not event.more_data:
                        _note(form, part, target)
    except RequestEntityTooLarge as error:
        raise ServiceFault(
            f"The form has more than {MOST_PARTS} parts, or a part with too long a head"
        ) from error
    except (ValueError, UnicodeDecodeError) as error:
        raise ServiceFault(f"The form cannot be read: {str(error)[:200]}") from error
    return form


async def _pieces(call: ServiceCall, limit: int) -> AsyncIterator[bytes | None]:
    async for chunk in call.chunks(limit):
        for start in range(0, len(chunk), _BUFFER // 4):
            yield chunk[start : start + _BUFFER // 4]
    yield None


def _file(event: File, opened: ExitStack) -> UploadedFile:
    made = tempfile.TemporaryFile(prefix="upload-")  # noqa: SIM115  # closed by the stack
    return UploadedFile(event.filename[:255], opened.enter_context(made))


async def _put(target: UploadedFile | bytearray, data: bytes) -> None:
    if isinstance(target, bytearray):
        target += data
        if len(target) > LONGEST_FIELD:
            raise ServiceFault(f"A field of the form is longer than {LONGEST_FIELD} bytes", 413)
        return
    try:
        await trio.to_thread.run_sync(target.file.write, data)
    except OSError as error:
        raise ServiceFault(f"The file cannot be kept while it is worked on: {error.strerror}", 507) from error
    target.size += len(data)


def _note(form: UploadedForm, part: Field | File, target: UploadedFile | bytearray) -> None:
    name = part.name or ""
    if isinstance(target, UploadedFile):
        try:
            target.file.seek(0)  # writes what is still buffered
        except OSError as error:
            sentence = f"The file cannot be kept while it is worked on: {error.strerror}"
            raise ServiceFault(sentence, 507) from error
        form.files.setdefault(name.removesuffix("[]"), []).append(target)
    elif name.endswith("[]"):
        form.fields.setdefault(name.removesuffix("[]"), []).append(target.decode())
    else:
        form.fields[name] = target.decode()
