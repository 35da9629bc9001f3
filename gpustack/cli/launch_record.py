"""What a launch has touched, written down before it is touched, so that it can be brought back after a crash too."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from gpustack import durable_file
from gpustack.cli.client_program import home_of
from gpustack.cli.text_edit import EditRefused, Setting, TextEdit, edit_of, read_setting
from gpustack.errors import GpustackError
from gpustack.text import trimmed

_LONGEST = 8 << 20


@attrs.frozen(kw_only=True)
class ChangedFile:
    """A file of a program as it was and as it is now. ``before`` is ``None`` for one that was not there; ``after`` is
    the SHA-256 of what was written, ``edits`` what was changed in it, the first first."""

    path: str
    form: str
    before: str | None = attrs.field(repr=False)
    mode: int
    after: str
    edits: list[dict[str, Any]] = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class ClientLaunch:
    """A launch: its key, and the files that were changed for it. ``pid`` is of the command that waits for the
    program."""

    client: str
    pid: int
    server: str
    key_name: str
    key_id: int | None = None
    stays: bool = True
    files: tuple[ChangedFile, ...] = ()

    @property
    def runs(self) -> bool:
        """Whether the command that will bring things back by itself is there."""
        if not self.stays or self.pid == os.getpid():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def folder(env: Mapping[str, str]) -> Path:
    """Where records are."""
    state = trimmed(env.get("XDG_STATE_HOME", "")) or f"{home_of(env)}/.local/state"
    return Path(state) / "gpustack" / "launch"


def write_record(record: ClientLaunch, env: Mapping[str, str]) -> None:
    """Keep the record where only its owner can read it. Raises GpustackError."""
    path = _path(record, env)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        durable_file.write(path, json.dumps(attrs.asdict(record), indent=1), mode=0o600)
    except OSError as error:
        raise GpustackError(f"{path} cannot be written: {error.strerror}") from error


def forget(record: ClientLaunch, env: Mapping[str, str]) -> None:
    """Remove the record: all is as it was."""
    _path(record, env).unlink(missing_ok=True)


def records(env: Mapping[str, str], client: str | None = None) -> list[ClientLaunch]:
    """The launches that are not brought back, the latest first. Raises GpustackError for a record that is damaged."""
    paths = sorted(folder(env).glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    found = [_read(path) for path in paths]
    return [record for record in found if client in (None, record.client)]


def _path(record: ClientLaunch, env: Mapping[str, str]) -> Path:
    return folder(env) / f"{record.client}-{record.pid}.json"


def _read(path: Path) -> ClientLaunch:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        files = tuple(ChangedFile(**file) for file in document.pop("files"))
        return ClientLaunch(**document, files=files)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise GpustackError(
            f"{path}, the record of a launch, cannot be read: bring back by hand and remove it"
        ) from error


def planned(settings: list[tuple[Path, Setting]]) -> list[tuple[ChangedFile, str]]:
    """How each file is changed, with its new text; nothing is written. Raises GpustackError that names the file."""
    by_path: dict[Path, list[Setting]] = {}
    for path, setting in settings:
        by_path.setdefault(path.resolve(), []).append(setting)
    return [_planned(path, wanted) for path, wanted in by_path.items()]


def _planned(path: Path, wanted: list[Setting]) -> tuple[ChangedFile, str]:
    try:
        before, mode = _content(path)
        text, edits = before or "", []
        for setting in wanted:
            edit = edit_of(text, setting)
            text = edit.applied(text)
            edits.append(attrs.asdict(edit))
    except EditRefused as error:
        raise GpustackError(f"{path} is left as it is: {error}") from error
    changed = ChangedFile(
        path=str(path), form=wanted[0].form, before=before, mode=mode, after=_digest(text), edits=edits
    )
    return changed, text


def _content(path: Path) -> tuple[str | None, int]:
    """The text of a file and its permissions. Raises EditRefused for one that is no text or cannot be read."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            content = file.read(_LONGEST + 1)
        if len(content) > _LONGEST:
            raise EditRefused("it is too long")
        return content.decode(), mode
    except FileNotFoundError:
        return None, 0o600
    except UnicodeDecodeError:
        raise EditRefused("it is no UTF-8 text") from None
    except OSError as error:
        raise EditRefused(f"it cannot be read ({error.strerror})") from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_file(changed: ChangedFile, text: str, *, private: bool = False) -> None:
    """Write the new text in one step; ``private``: for the eyes of its owner alone. Raises GpustackError."""
    path, mode = Path(changed.path), changed.mode & 0o700 if private else changed.mode
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        durable_file.write(path, text, mode=mode)
        path.chmod(mode)
    except OSError as error:
        raise GpustackError(f"{path} cannot be written: {error.strerror}") from error


def bring_back(changed: ChangedFile) -> str:
    """Make the file what it was, byte for byte, and say so. Where it was changed since, only our own change is taken
    out. Raises GpustackError where that cannot be done."""
    path = Path(changed.path)
    try:
        now, _ = _content(path)
        if now is None:
            return f"{path} is gone already"
        if _digest(now) == changed.after:
            if changed.before is None:
                path.unlink()
                return f"{path} is removed again"
            write_file(changed, changed.before)
            return f"{path} is as it was"
        text = now
        for edit in reversed(changed.edits):
            undone = TextEdit(**edit).undone(text)
            if undone is None:
                raise EditRefused("it was changed since, and what was added is not found in it")
            text = undone
        read_setting(text, changed.form)
    except EditRefused as error:
        raise GpustackError(
            f"{path} is left as it is ({error}): take what names GPUStack out of it, then give --forget"
        ) from error
    except OSError as error:
        raise GpustackError(f"{path} cannot be brought back: {error.strerror}") from error
    write_file(changed, text)
    return f"{path} was changed since: what was added for GPUStack is taken out of it"
