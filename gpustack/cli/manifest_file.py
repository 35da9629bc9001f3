"""Manifests in files: reads them with the lines of their values, sends them, and tells faults by file and line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from gpustack.cli.command_line import CommandLine
from gpustack.cli.failure import UsageError
from gpustack.cli.input_file import read_input
from gpustack.cli.session import Doc
from gpustack.domain.yaml_lines import LineFault, Mark, YamlDocument, read_documents

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

MANIFESTS = "/v1/manifests"
PLANS = "/v1/plans"
LONGEST = 1 << 20
_SUFFIXES = (".yaml", ".yml", ".json")
_SHOWN = 60


@attrs.frozen
class FileDocument:
    """One document of a file."""

    file: str
    document: YamlDocument

    def place(self, field: str) -> tuple[str, Mark]:
        """``file:line`` of a field as the server names it, or of what is nearest around it; and its mark."""
        marks = self._by_text
        while field not in marks:
            field = re.sub(r"(?:^|[.\[])[^.\[]*$", "", field)
        return f"{self.file}:{marks[field].line}", marks[field]

    @cached_property
    def _by_text(self) -> Mapping[str, Mark]:
        return {_text_of(path): mark for path, mark in self.document.marks.items()}


def _text_of(path: Sequence[str | int]) -> str:
    """``env.A``, ``lora_adapters[0].name``: a path as faults of the server have it."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def read_manifest_files(command_line: CommandLine, names: Sequence[str]) -> list[FileDocument]:
    """The documents of files, folders (their files that end in .yaml, .yml or .json, by name) and stdin (``-``).

    Raises UsageError with all faults, each as ``file:line: what is wrong``.
    """
    found: list[FileDocument] = []
    faults: list[str] = []
    for name in names:
        for file in _files(command_line, name):
            documents, wrong = read_documents(read_input(command_line, file, LONGEST))
            shown = "stdin" if file == "-" else file
            found += [FileDocument(shown, document) for document in documents]
            faults += [_told(shown, fault) for fault in wrong]
    if faults:
        raise UsageError("\n".join(faults))
    if not found:
        raise command_line.error(f"{', '.join(names)}: there is no manifest in it")
    return found


def _told(file: str, fault: LineFault) -> str:
    return f"{file}:{fault.line}: {fault.sentence}"


def _files(command_line: CommandLine, name: str) -> list[str]:
    path = Path(name)
    if name == "-" or not path.is_dir():
        return [name]
    found = sorted(str(one) for one in path.iterdir() if one.suffix in _SUFFIXES and one.is_file())
    if not found:
        raise command_line.error(f"{name}: this folder has no file that ends in {', '.join(_SUFFIXES)}")
    return found


async def send(
    client: AdminClient, path: str, files: Sequence[FileDocument], fields: Mapping[str, Any]
) -> Doc:
    """What the server answers to the documents and further fields. Raises UsageError with all faults by file and
    line."""
    documents = [one.document.value for one in files]
    status, answer = await client.attempt(path, {"documents": documents, **fields})
    if status == 422:
        raise UsageError("\n".join(_fault(files, fault) for fault in answer["faults"]))
    return answer


def _fault(files: Sequence[FileDocument], fault: Mapping[str, Any]) -> str:
    number, field = int(fault["document"]), str(fault.get("field") or "")
    where, mark = files[number].place(field)
    told = f"{where}: {field}: {fault['sentence']}" if field else f"{where}: {fault['sentence']}"
    if mark.plain is not None and str(fault["sentence"]).startswith("must be text"):
        told += f" (without quotes, {mark.plain or 'nothing'} is no text in YAML)"
    if (first := fault.get("first")) is not None:
        told += f"; the first is at {files[int(first)].place('')[0]}"
    return told


def drawn(value: Any) -> str:
    """A value of a field on one line, cut to a width that leaves room for the field's name."""
    import json

    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    text = " ".join(text.split()) if text.strip() else repr(text)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def names_of(objects: Sequence[Mapping[str, Any]]) -> str:
    """``Model/a, Model/b``."""
    return ", ".join(f"{one['kind']}/{one['name']}" for one in objects)
