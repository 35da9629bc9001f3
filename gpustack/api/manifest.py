"""Manifests: what a cluster is to hold, as documents. Reads them, tells all faults at once, and writes all or none."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any

import attrs

from gpustack.domain.record import Record
from gpustack.domain.snapshot import Snapshot
from gpustack.errors import GpustackError, Invalid
from gpustack.plugins import siblings
from gpustack.store.transaction import Tx
from gpustack.text import MASK

from .mask import holds_secret, masked
from .shape import AnyJson, Array, Dictionary, Document, JsonShape, LimitsObject, Nullable, Text
from .view import Doc

MOST_FAULTS = 500
"""Faults after which no further document is looked at."""
KEPT = "secrets_kept"
"""The field that names what is not in the manifest because it is a secret, and stays as it is stored."""

Writes = Callable[[Tx, Doc, str], Record]
"""Writes one object, as a document that was read and completed, on behalf of an account. Raises ``GpustackError``."""


@attrs.frozen(kw_only=True)
class ManifestKind:
    """One kind of manifests. ``rank``: those of a lower one are written before, because others refer to them."""

    name: str
    rank: int
    body: Document
    """All its fields but ``kind`` and ``secrets_kept``."""
    defaults: Mapping[str, Any]
    """What a field that is left out means; a field without a default is required."""
    named_by: tuple[str, ...] = ("name",)
    """The fields, of texts, without which an object is not named."""
    called: Callable[[Doc], str] = lambda document: str(document["name"]).strip()
    """The name of the object that a document is about."""
    all: Callable[[Snapshot], Mapping[str, Doc]]
    """Every object there is, as a complete document, by its name."""
    write: Writes
    says_something: Callable[[Doc], bool] = lambda document: True
    """Whether an object is worth a manifest: others are as if there were none of them."""

    def complete(self, document: Doc) -> Doc:
        """The document with what its missing fields mean."""
        return {**self.defaults, **document}

    def bare(self, document: Doc) -> Doc:
        """The document without fields that are as if they were missing, in the order of the fields."""
        return {
            name: document[name]
            for name in self.body.fields
            if name in document and (name not in self.defaults or document[name] != self.defaults[name])
        }


@attrs.frozen(kw_only=True)
class ManifestFault:
    """What is wrong with a field of one of the documents, counted from 0; ``field`` is empty where it is none alone.

    ``first``: the other document that it is about.
    """

    document: int
    field: str
    sentence: str
    first: int | None = None


class ManifestFaults(GpustackError):
    """Some of the documents are wrong; nothing was written."""

    def __init__(self, faults: Sequence[ManifestFault]) -> None:
        self.faults = tuple(faults)
        super().__init__(f"{len(faults)} {'fault' if len(faults) == 1 else 'faults'} in the manifests")


@attrs.frozen(kw_only=True)
class ManifestChange:
    """What became of one object. ``fields``: by name those that differ, as they were and as they are now; of a new
    object it is empty. Secrets are masked."""

    kind: str
    name: str
    change: str
    fields: Mapping[str, Mapping[str, Any]]
    record: Record | None = None
    """As it is stored now, where it was written."""
    details: Mapping[str, Any] = attrs.field(factory=dict)
    """The same for the audit trail."""

    @property
    def document(self) -> Doc:
        return {"kind": self.kind, "name": self.name, "change": self.change, "fields": dict(self.fields)}


@attrs.frozen(kw_only=True)
class ManifestDocument:
    """A document as it was read: its place among all, its kind, the object's name and the fields that were given."""

    place: int
    kind: ManifestKind
    name: str
    fields: Doc
    kept: tuple[str, ...] = ()


@cache
def kinds() -> Mapping[str, ManifestKind]:
    """All kinds by name, in the order in which they are written."""
    found: list[ManifestKind] = [module.KIND for module in siblings("gpustack.api.manifest_kinds")]
    return {kind.name: kind for kind in sorted(found, key=lambda kind: (kind.rank, kind.name))}


@attrs.frozen
class ManifestSet:
    """The documents of one call: those in which nothing is wrong by themselves, and the faults of the others."""

    manifests: tuple[ManifestDocument, ...]
    faults: tuple[ManifestFault, ...]


def read_manifests(documents: Sequence[Any]) -> ManifestSet:
    """The documents, judged without what is stored. No more are looked at once ``MOST_FAULTS`` are found: to guess
    what was meant takes time."""
    found: list[ManifestDocument] = []
    faults: list[ManifestFault] = []
    first: dict[tuple[str, str], int] = {}
    for place, document in enumerate(documents):
        if len(faults) >= MOST_FAULTS:
            sentence = f"this and what follows was not looked at: there are {len(faults)} faults before"
            faults.append(ManifestFault(document=place, field="", sentence=sentence))
            break
        kind = _kind_of(place, document, faults)
        if kind is None:
            continue
        mine: list[ManifestFault] = []
        one = _read(place, kind, document, mine, max(MOST_FAULTS - len(faults), 1))
        faults += mine
        if one is not None:
            known = first.setdefault((kind.name, one.name), place)
            if known != place:
                sentence = f"{kind.name} {one.name} is described a second time"
                faults.append(ManifestFault(document=place, field="name", sentence=sentence, first=known))
            elif not mine:
                found.append(one)
    return ManifestSet(tuple(found), tuple(faults))


def _kind_of(place: int, document: Any, faults: list[ManifestFault]) -> ManifestKind | None:
    if not isinstance(document, dict):
        sentence = "a manifest is a mapping of kind, name and other fields"
        faults.append(ManifestFault(document=place, field="", sentence=sentence))
        return None
    known = ", ".join(kinds())
    name = document.get("kind")
    kind = kinds().get(name) if isinstance(name, str) else None
    if kind is None:
        guess = _nearest(str(name), kinds())
        meant = f"; did you mean {guess}?" if guess else f"; there are {known}"
        sentence = f"is missing; there are {known}" if name is None else f"{name!r} is no kind{meant}"
        faults.append(ManifestFault(document=place, field="kind", sentence=sentence))
    return kind


def _read(
    place: int, kind: ManifestKind, document: Doc, faults: list[ManifestFault], room: int
) -> ManifestDocument | None:
    """The manifest, whatever else is wrong with it; ``None`` where not even its object is named. Of unknown fields as
    many are told as there is ``room`` for."""

    def fault(field: str, sentence: str) -> None:
        faults.append(ManifestFault(document=place, field=field, sentence=sentence))

    given = {field: value for field, value in document.items() if field not in ("kind", KEPT)}
    for field, sentence in islice(_unknown_fields(given, kind.body, ""), room):
        fault(field, sentence)
    for field in masks_in(given):
        fault(field, f"is a mask ({MASK}), not the value: write the value, or name {field} in {KEPT}")
    told: list[str] = []
    kept = _KEPT.read(document.get(KEPT), KEPT, told)
    required = tuple(field for field in kind.body.required if field not in kept)
    attrs.evolve(kind.body, required=required).read(given, "", told)
    for text in told:
        fault(*_parted(text))
    if any(not isinstance(given.get(field), str) for field in kind.named_by):
        return None
    return ManifestDocument(place=place, kind=kind, name=kind.called(given), fields=given, kept=tuple(kept))


_KEPT = Nullable(Array(Text(longest=512), 200), ())


def apply_manifests(tx: Tx, given: ManifestSet, by: str) -> list[ManifestChange]:
    """Write all in the caller's transaction, in the order of their kinds, and tell what became of each, in theirs.

    Raises ``ManifestFaults`` with all faults: then the transaction must be undone.
    """
    done: dict[int, ManifestChange] = {}
    faults = list(given.faults)
    faulty: set[str] = set()
    for kind in kinds().values():
        # What refers to something faulty is not judged: its own fault would be but a consequence.
        mine = [
            one for one in given.manifests if one.kind is kind and one.fields.get("backend") not in faulty
        ]
        before = kind.all(tx.snapshot) if mine else {}
        written: dict[int, Record] = {}
        for one in mine:
            told: list[str] = []
            try:
                whole = kind.complete(_with_kept(one, before.get(one.name), told))
                if not told and whole != before.get(one.name):
                    written[one.place] = kind.write(tx, kind.body.read(whole, "", told), by)
            except Invalid as error:
                told += error.faults
            except GpustackError as error:
                told += str(error).splitlines()
            if told:
                faulty.add(one.name)
            for text in told:
                field, sentence = _parted(text, kind.body)
                faults.append(ManifestFault(document=one.place, field=field, sentence=sentence))
        after = kind.all(tx.snapshot) if written and not faults else before
        for one in mine if not faults else ():
            done[one.place] = _change(one, before.get(one.name), after[one.name], written.get(one.place))
    if faults:
        raise ManifestFaults(sorted(faults, key=lambda fault: fault.document))
    return [done[one.place] for one in given.manifests]


def _with_kept(one: ManifestDocument, stored: Doc | None, faults: list[str]) -> Doc:
    """The fields that were given, and those stored that the manifest leaves out for being secret."""
    fields = dict(one.fields)
    for path in one.kept:
        field, dot, key = path.partition(".")
        holder = stored if not dot else (stored or {}).get(field)
        if not isinstance(holder, dict) or (key or field) not in holder:
            faults.append(f"{KEPT}: {path} has no value here that could stay: write it into the manifest")
        elif not dot:
            fields[field] = holder[field]
        else:
            fields[field] = {**(fields.get(field) or {}), key: holder[key]}
    return fields


def _change(one: ManifestDocument, before: Doc | None, after: Doc, record: Record | None) -> ManifestChange:
    kind = one.kind
    if before is None:
        details = {"fields": masked(kind.bare(after), kind.body)}
        return ManifestChange(
            kind=kind.name, name=one.name, change="created", fields={}, record=record, details=details
        )
    differing = _differences(before, after)
    return ManifestChange(
        kind=kind.name,
        name=one.name,
        change="changed" if differing else "unchanged",
        fields=_masked_pairs(differing),
        record=record,
        details={"changes": {name: _audited(kind, name, pair) for name, pair in differing.items()}},
    )


def _audited(kind: ManifestKind, name: str, pair: Doc) -> Doc:
    field, _, key = name.partition(".")
    shape = kind.body.fields[field]
    shape = shape.of if isinstance(shape, Nullable) else shape
    if key and isinstance(shape, Dictionary):
        shape = shape.of
    return {when: masked(value, shape, key or field) for when, value in pair.items()}


FIELD_CHANGES = Dictionary(Document(name="ManifestFieldChange", fields={"from": AnyJson(), "to": AnyJson()}))
"""Of the fields that differ between two documents, what they were and what they are."""


def differences_shown(before: Doc, after: Doc) -> dict[str, Doc]:
    """The fields that differ between two complete documents, with secrets masked."""
    return _masked_pairs(_differences(before, after))


def _masked_pairs(differing: Mapping[str, Doc]) -> dict[str, Doc]:
    return {
        name: {when: _shown(value, name) for when, value in pair.items()} for name, pair in differing.items()
    }


def _differences(before: Doc, after: Doc) -> dict[str, Doc]:
    found: dict[str, Doc] = {}
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            for key in sorted(old.keys() | new.keys()):
                if old.get(key) != new.get(key):
                    found[f"{name}.{key}"] = {"from": old.get(key), "to": new.get(key)}
        else:
            found[name] = {"from": old, "to": new}
    return found


def _shown(value: Any, name: str) -> Any:
    field, _, key = name.partition(".")
    is_secret = field not in _NEVER_SECRET and holds_secret(value, key)
    return MASK if is_secret else value


def export_manifests(snapshot: Snapshot, *, secrets: bool = False) -> list[Doc]:
    """Everything that manifests can describe, as documents: kinds in the order in which they are written, objects by
    name, without fields that have their defaults.

    Without ``secrets`` what is likely one is left out and named in ``secrets_kept``.
    """
    found: list[Doc] = []
    for kind in kinds().values():
        for _, document in sorted(kind.all(snapshot).items()):
            if not kind.says_something(document):
                continue
            bare = kind.bare(document)
            kept: list[str] = []
            if not secrets:
                bare, kept = _without_secrets(bare)
            found.append({"kind": kind.name, **bare, **({KEPT: kept} if kept else {})})
    return found


def _without_secrets(document: Doc) -> tuple[Doc, list[str]]:
    left: Doc = {}
    kept: list[str] = []
    for name, value in document.items():
        if isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
            secret = [key for key, item in value.items() if holds_secret(item, key)]
            kept += [f"{name}.{key}" for key in secret]
            rest = {key: item for key, item in value.items() if key not in secret}
            left.update({name: rest} if rest else {})
        elif name in _NEVER_SECRET or not holds_secret(value):
            left[name] = value
        else:
            kept.append(name)
    return left, kept


_NEVER_SECRET = frozenset(
    {
        "name",
        "user",
        "key",
        "limits",
        "description",
        "tolerations",
        "anti_affinity",
        "gpu_selector",
        "lora_adapters",
    }
)
"""Fields in which a word like ``key`` tells of no secret."""


def masks_in(document: Doc) -> list[str]:
    """The fields in which a mask stands in the place of a secret."""
    found = []
    for name, value in document.items():
        if name in _NEVER_SECRET:
            continue  # nobody masks it: there it is what somebody wrote
        if isinstance(value, dict):
            found += [f"{name}.{key}" for key, item in value.items() if _holds_mask(item)]
        elif _holds_mask(value):
            found.append(name)
    return found


def _holds_mask(value: Any) -> bool:
    """Whether it is a mask, or one stands in it, however deep: bodies are no deeper than their parser reads."""
    left = [value]
    while left:
        one = left.pop()
        if _is_mask(one):
            return True
        left += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
    return False


def _is_mask(value: Any) -> bool:
    return isinstance(value, str) and (value == MASK or value.endswith((f"={MASK}", f" {MASK}")))


def _unknown_fields(value: Any, shape: JsonShape, at: str) -> Iterator[tuple[str, str]]:
    """Fields that the shape does not have, each with the one that was probably meant."""
    inside = f"{at}." if at else ""
    if isinstance(shape, Nullable):
        yield from _unknown_fields(value, shape.of, at)
    elif isinstance(shape, Array) and isinstance(value, list):
        for number, item in enumerate(value):
            yield from _unknown_fields(item, shape.of, f"{at}[{number}]")
    elif not isinstance(value, dict) or isinstance(shape, LimitsObject):
        return
    elif isinstance(shape, Dictionary):
        for key, item in value.items():
            yield from _unknown_fields(item, shape.of, f"{inside}{key}")
    elif isinstance(shape, Document):
        for name, item in value.items():
            if name in shape.fields:
                yield from _unknown_fields(item, shape.fields[name], f"{inside}{name}")
                continue
            guess = _nearest(name, shape.fields)
            meant = f"did you mean {guess}?" if guess else f"there are {', '.join(shape.fields)}"
            yield f"{inside}{name}", f"is not known; {meant}"


def _nearest(word: str, known: Mapping[str, Any]) -> str | None:
    folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), folded, n=1)
    return folded[near[0]] if near else None


_FIELD = re.compile(r"([a-z_]+(?:[.\[][^ :]*)?): (.*)", re.DOTALL)


def _parted(text: str, body: Document | None = None) -> tuple[str, str]:
    """``field: sentence`` in its two parts; without a field where it names none that the body has."""
    found = _FIELD.fullmatch(text)
    if found is None:
        return "", text
    name = re.split(r"[.\[]", found[1], maxsplit=1)[0]
    return (found[1], found[2]) if body is None or name in body.fields or name == KEPT else ("", text)
