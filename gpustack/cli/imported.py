"""What an importer has found in another product's installation, made into manifests that apply here.

Everything in it comes from outside: texts are bounded and washed, what is likely a secret is left out and named, and
what this product would refuse is left out with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from gpustack.api.deployment import model_from, refuse_wrong
from gpustack.api.manifest import kinds, read_manifests
from gpustack.api.manifest_kinds.model import KIND as MODEL
from gpustack.api.mask import holds_secret
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.yaml_lines import dump_documents
from gpustack.engines.parameters import read
from gpustack.errors import AlreadyExists, BadRequest, GpustackError, Invalid
from gpustack.text import printable

Doc = dict[str, Any]

MOST_MODELS = 1000
_DEEPEST = 50
_LONGEST_REMARK = 400
_MOST_REMARKS = 2000


class ImportFault(GpustackError):
    """The other installation could not be read, as a sentence."""


def of_others(document: Any, place: str) -> Any:
    """JSON of another product, if it is nested no deeper than any of theirs; else raises ImportFault."""
    level, deep = [document], 0
    while level:
        if deep > _DEEPEST:
            raise ImportFault(f"{place} holds something that is nested more than {_DEEPEST} deep")
        nested = [one for one in level if isinstance(one, dict | list)]
        level = [item for one in nested for item in (one.values() if isinstance(one, dict) else one)]
        deep += 1
    return document


@attrs.frozen
class LeftOut:
    """Something that was not carried over, and why."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{printable(self.what, 200)}: {printable(self.why, _LONGEST_REMARK)}"


@attrs.define
class Imported:
    """The manifests, and what is not in them. ``origin`` says where they are from."""

    origin: str
    documents: list[Doc] = attrs.field(factory=list)
    left_out: list[LeftOut] = attrs.field(factory=list)
    _remarks: dict[int, list[str]] = attrs.field(factory=dict)

    def leave(self, what: str, why: str) -> None:
        """Note something that is not carried over."""
        if len(self.left_out) < _MOST_REMARKS:
            self.left_out.append(LeftOut(what, why))

    def add_model(self, document: Mapping[str, Any], remarks: list[str]) -> None:
        """Add a deployment by the fields of its manifest, without what is likely a secret and without what does not
        differ from the defaults; or leave it out, with all that is wrong. ``remarks`` stand above it in the file."""
        name = document.get("name")
        if not isinstance(name, str):
            self.leave(f"Model/{name}", "its name is no text")
            return
        if len(self.documents) >= MOST_MODELS:
            self.leave(name, f"only {MOST_MODELS} models are taken over at once")
            return
        told = list(remarks)
        given = {field: value for field, value in document.items() if value is not None}
        _without_secrets(given, told)
        bare = {"kind": MODEL.name, **MODEL.bare(given)}
        if wrong := _faults(bare, self.documents):
            self.leave(f"Model/{name}", "; ".join(wrong))
            return
        self._remarks[len(self.documents)] = told
        self.documents.append(bare)

    def faults_of(self, document: Mapping[str, Any]) -> list[str]:
        """Why ``add_model`` would leave it out."""
        given = {field: value for field, value in document.items() if value is not None}
        return _faults({"kind": MODEL.name, **MODEL.bare(given)}, self.documents)

    def as_yaml(self) -> str:
        """The manifests with the remarks above each, and before all what was left out."""
        head = [f"Imported from {self.origin}."]
        if self.left_out:
            head += ["Not carried over:", *(f"- {one}" for one in self.left_out)]
        comments = "".join(f"# {printable(line)}\n" for line in head)
        remarks = {
            place: "\n".join(printable(one, _LONGEST_REMARK) for one in told)
            for place, told in self._remarks.items()
            if told
        }
        return comments + dump_documents(self.documents, remarks)


def _without_secrets(document: Doc, told: list[str]) -> None:
    """Drop the variables and parameters that are likely secrets, and say so: they must be written anew."""
    env = document.get("env")
    if isinstance(env, Mapping):
        secret = sorted(name for name, value in env.items() if holds_secret(value, str(name)))
        if secret:
            document["env"] = {name: value for name, value in env.items() if name not in secret}
            told.append(f"env: {', '.join(secret)} left out as likely secrets: write them anew")
    parameters = document.get("backend_parameters")
    if isinstance(parameters, list) and holds_secret(parameters):
        kept, dropped, last = list[str](), list[str](), ""
        for one in read(item for item in parameters if isinstance(item, str)):
            text = one.flag if one.value is None else f"{one.flag}={one.value}" if one.flag else one.value
            if not one.flag and dropped and last == dropped[-1]:
                continue  # one more value of a flag that takes several
            last = one.flag
            dropped.append(one.flag) if holds_secret(text) else kept.append(text)
        document["backend_parameters"] = kept
        if dropped:
            told.append(
                f"backend_parameters: {', '.join(dropped)} left out as likely secrets: write them anew"
            )
    command = document.get("command")
    if isinstance(command, str) and holds_secret(command):
        del document["command"]
        told.append("command: left out, because it has what is likely a secret: put that into env")


def _faults(document: Doc, others: list[Doc]) -> list[str]:
    """Why an empty cluster would refuse the manifest, beside those that are there already."""
    taken = {one["name"] for one in others}
    if document.get("name") in taken:
        return ["there is another of this name"]
    judged = read_manifests([document])
    if judged.faults:
        return [f"{fault.field}: {fault.sentence}".removeprefix(": ") for fault in judged.faults]
    told: list[str] = []
    kind = kinds()[MODEL.name]
    fields = {name: value for name, value in document.items() if name != "kind"}
    whole = kind.body.read(kind.complete(fields), "", told)
    if told:
        return told
    try:
        refuse_wrong(model_from({**whole, "allowed_users": ()}), Snapshot())
    except Invalid as error:
        return list(error.faults)
    except (BadRequest, AlreadyExists) as error:
        return str(error).splitlines()
    return []
