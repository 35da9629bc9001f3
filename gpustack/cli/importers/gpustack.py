"""An installation of GPUStack 0.7 or 2.x, whether its records come from its API or from its database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from gpustack.api.manifest_kinds.model import KIND
from gpustack.api.shape import Boolean, Nullable
from gpustack.api.v2.resources.models import TRANSLATION, policy_from
from gpustack.api.v2.translation import Reading
from gpustack.cli.imported import Doc, Imported
from gpustack.errors import GpustackError
from gpustack.text import printable

_SOURCES = ("huggingface", "model_scope", "ollama_library", "local_path")
_ENUMS = {"HUGGING_FACE": "huggingface", **{name.upper(): name for name in _SOURCES}}
"""How a database spells a source: by the name of the member."""
_FLAGS = {
    "embedding_only": "embedding",
    "image_only": "image",
    "reranker": "reranker",
    "speech_to_text": "speech_to_text",
    "text_to_speech": "text_to_speech",
}
_KEY = "make it anew with gpustack keys: only a hash of it is stored, in a form of their own"
_USER = "make the account anew with gpustack users: its password is stored as a hash and is not read"
_SWITCHES = tuple(
    name
    for name, shape in KIND.body.fields.items()
    if isinstance(shape.of if isinstance(shape, Nullable) else shape, Boolean)
)
"""Fields that are true or false, which SQLite and MySQL keep as numbers."""
_OWN_COLUMNS = ("cluster_id", "enable_model_route", "state", "state_message")


@attrs.frozen(kw_only=True)
class Installation:
    """The records of theirs that have something to say here; ``None`` where they could not be read."""

    models: list[Doc]
    users: list[Doc] | None = None
    keys: list[Doc] | None = None
    backends: list[Doc] | None = None
    workers: list[Doc] | None = None
    routes: list[Doc] | None = None
    allowed: Mapping[int, list[str]] = attrs.field(factory=dict)
    """The names of the accounts that may use a route, by its number."""


def convert(installation: Installation, origin: str) -> Imported:
    """Their deployments as manifests, and everything else as what was left out."""
    made = Imported(origin)
    routes = {number_of(route.get("created_model_id")): route for route in installation.routes or ()}
    for record in installation.models:
        key = number_of(record.get("id"))
        _add(made, record, None if key is None else routes.get(key), installation.allowed)
    for route in installation.routes or ():
        if route.get("created_model_id") is None:
            made.leave(f"route {route.get('name')}", "a model has one route here, which is made with it")
    _leave_all(made, "account", "username", installation.users, _USER, skip=("admin",))
    _leave_all(made, "API key", "name", installation.keys, _KEY)
    made_here = [one for one in installation.backends or () if not one.get("is_built_in")]
    _leave_all(
        made,
        "backend",
        "backend_name",
        made_here,
        "it is a container image there and a command here: describe it as docs/backends.md says",
    )
    _leave_all(made, "worker", "name", installation.workers, "install GPUStack on it and join it anew")
    return made


def number_of(value: Any) -> int | None:
    """What numbers a record, if it is a number at all."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _leave_all(
    made: Imported, noun: str, field: str, found: Iterable[Doc] | None, why: str, skip: tuple[str, ...] = ()
) -> None:
    if found is None:
        made.leave(f"{noun}s", "could not be read with this key")
    names = [str(one.get(field)) for one in found or () if not one.get("is_system")]
    for name in names:
        if name not in skip:
            made.leave(f"{noun} {name}", why)


def _add(made: Imported, record: Doc, route: Doc | None, allowed: Mapping[int, list[str]]) -> None:
    name, remarks, reading = record.get("name"), list[str](), Reading()
    if not isinstance(name, str):
        made.leave(f"Model/{name}", "its name is no text")
        return
    given = {field: value for field, value in record.items() if field not in _OWN_COLUMNS}
    source = given.get("source")
    given["source"] = _ENUMS.get(source, source) if isinstance(source, str) else source
    if isinstance(given.get("placement_strategy"), str):
        given["placement_strategy"] = given["placement_strategy"].lower()
    given.update({field: bool(given[field]) for field in _SWITCHES if given.get(field) in (0, 1)})
    _access(given, route, allowed, remarks)
    try:
        document = TRANSLATION.read(given, KIND.body.fields, reading)
    except GpustackError as error:
        made.leave(f"Model/{name}", str(error))
        return
    flags = [category for flag, category in _FLAGS.items() if given.get(flag)]
    if flags and not document.get("categories"):
        document["categories"] = flags
    for field in ("backend_version", "gpu_selector"):
        if document.get(field):
            remarks.append(f"{field}: {_WHY[field]}")
        document.pop(field, None)
    if document.get("backend") != "custom" and document.get("command"):
        del document["command"]
        remarks.append("run_command: its backend has its own command here")
    document = _without_idle_switches(made, document, remarks)
    lost = [field for field in (*reading.ignored, *reading.unread) if field not in _FLAGS]
    if lost:
        remarks.append(f"not carried over, for want of a counterpart: {', '.join(map(printable, lost))}")
    if document.get("source") == "local_path":
        remarks.append("its files must be on the workers, at this path")
    made.add_model(document, remarks)


def _without_idle_switches(made: Imported, document: Doc, remarks: list[str]) -> Doc:
    """Without the switches that the engine of a model does not have: there they are no fault."""
    for field in _FOR_ALL:
        without = {name: value for name, value in document.items() if name != field}
        if document.get(field) and set(made.faults_of(document)) - set(made.faults_of(without)):
            document = without
            remarks.append(f"{field}: left out: its engine does not do that, here or there")
    return document


_FOR_ALL = ("cpu_offloading", "distributed_inference_across_workers")
"""Switches that 0.7 sets for every model, whatever its engine makes of them."""
_WHY = {
    "backend_version": "left out: the version that a worker has runs",
    "gpu_selector": "left out: it names workers and GPUs of the other installation",
}


def _access(given: Doc, route: Doc | None, allowed: Mapping[int, list[str]], remarks: list[str]) -> None:
    """Who may use it. Where that was some accounts, it is nobody but administrators until they are there again."""
    policy: Any = (route or {}).get("access_policy") or given.get("access_policy")
    policy = policy_from(policy.lower()) if isinstance(policy, str) else None
    given.pop("allowed_users", None)
    given["access_policy"] = policy
    if policy == "allowed_users":
        names = allowed.get(number_of((route or given).get("id")) or 0, [])
        told = ", ".join(names) if names else "some accounts"
        remarks.append(f"allowed_users: was open to {told}; make the accounts, then name them here")
