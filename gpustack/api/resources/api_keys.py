"""API keys: one's own, for administrators also those of others. The secret is answered once; its hash is stored."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import attrs

from gpustack.domain.access import ApiKey, KeyScope, Principal
from gpustack.errors import AlreadyExists, Conflict, Forbidden, Unauthorized
from gpustack.identity.keys import make_api_key
from gpustack.policy.access import excess
from gpustack.store.transaction import Tx

from ..listing import ListSelection, equal
from ..problems import MalformedRequest
from ..resource import NO_ROLE, Resource, document_view
from ..route import PEOPLE, ApiCall
from ..shape import (
    LIMITS,
    Array,
    Boolean,
    Choice,
    Document,
    Integer,
    JsonShape,
    Nullable,
    QueryParameter,
    Text,
)
from ..view import RenderContext
from ..wire import API_KEY

_LONGEST = 100 * 365 * 86400
"""Seconds."""
MOST_KEYS = 200
"""Keys of one account: each is kept in memory and shown in every list."""

_FIELDS: dict[str, JsonShape] = {
    "name": Text(shortest=1, longest=255, one_line=True),
    "description": Nullable(Text(longest=4096)),
    "expires_in": Nullable(Integer(least=0, most=_LONGEST)),
    "is_enabled": Boolean(),
    "scopes": Nullable(Array(Choice(KeyScope), 10)),
    "allowed_model_names": Nullable(Array(Text(shortest=1, longest=200), 100)),
    "limits": LIMITS,
}
_NOTE = "expires_in: seconds from now; 0 or none is never. No scopes or allowed_model_names: all that the owner may."


@attrs.frozen
class _NewKey:
    key: ApiKey
    value: str = attrs.field(repr=False)


def _visible(principal: Principal, key: ApiKey) -> bool:
    return principal.is_admin or key.user_id == principal.user_id


def _listed(call: ApiCall) -> Callable[[ApiKey], bool]:
    if call.query.flag("all") or call.query.one("user_id") is not None:
        return lambda key: True
    return lambda key: key.user_id == call.caller.user_id


def _shown(new: _NewKey, context: RenderContext) -> dict[str, Any]:
    return {**API_KEY.of(new.key, context), "value": new.value}


def _fields(document: dict[str, Any], now: datetime) -> dict[str, Any]:
    """The fields of a key that a document sets. Raises ``MalformedRequest``."""
    fields: dict[str, Any] = {
        name: document[name] for name in ("description", "is_enabled", "limits") if name in document
    }
    faults = []
    if "name" in document:
        fields["name"] = document["name"].strip()
        if not fields["name"]:
            faults.append("name: must not be empty")
    if "expires_in" in document:
        seconds = document["expires_in"]
        fields["expires_at"] = now + timedelta(seconds=seconds) if seconds else None
    for name, field in (("scopes", "scopes"), ("allowed_model_names", "allowed_models")):
        if name not in document:
            continue
        if document[name] == ():  # it could mean nothing or everything
            faults.append(f"{name}: must name at least one, or be null for all")
        fields[field] = None if document[name] is None else tuple(sorted(set(document[name])))
    if faults:
        raise MalformedRequest(*faults)
    return fields


def _refuse_taken(tx: Tx, user_id: int, name: str) -> None:
    if tx.find(ApiKey, user_id=user_id, name=name) is not None:
        raise AlreadyExists(f"API key '{name}' already exists")


def _refuse_one_more(tx: Tx, user_id: int) -> None:
    if sum(key.user_id == user_id for key in tx.all(ApiKey).values()) >= MOST_KEYS:
        raise Conflict(f"This account has {MOST_KEYS} API keys, the most there may be: delete one first")


def _own(tx: Tx, caller: Principal) -> ApiKey | None:
    """The key that the caller uses, as it is now; ``None`` without one. Raises ``Unauthorized`` for a disabled one."""
    own = tx.get(ApiKey, caller.api_key_id)
    if caller.api_key_id is not None and (own is None or not own.is_enabled):
        raise Unauthorized
    return own


def _refuse_more(own: ApiKey | None, key: ApiKey) -> None:
    """A caller with a restricted key cannot give a key more rights than that one has."""
    if own is not None and (more := excess(own, key)) is not None:
        raise Forbidden(more)


async def _create(call: ApiCall) -> _NewKey:
    user_id = call.caller.user_id
    if user_id is None:
        raise Forbidden
    access, secret, value = make_api_key(call.context.rng)
    key = ApiKey(
        **_fields(call.document, call.context.clock()),
        user_id=user_id,
        access_key=access,
        secret_hash=call.context.keys.api_hash(secret),
    )

    def work(tx: Tx) -> ApiKey:
        _refuse_taken(tx, user_id, key.name)
        _refuse_one_more(tx, user_id)
        _refuse_more(_own(tx, call.caller), key)
        return tx.insert(key)

    return _NewKey(await call.context.store.write(work), value)


async def _update(call: ApiCall, key: ApiKey) -> ApiKey:
    fields = _fields(call.document, call.context.clock())

    def work(tx: Tx) -> ApiKey:
        own = _own(tx, call.caller)  # before the change: it may be this one
        if fields.get("name", key.name) != key.name:
            _refuse_taken(tx, key.user_id, fields["name"])
        changed = tx.change(ApiKey, key.id, **fields)
        _refuse_more(own, changed)
        return changed

    return await call.context.store.write(work)


async def _delete(call: ApiCall, key: ApiKey) -> None:
    await call.context.store.write(lambda tx: tx.delete(ApiKey, key.id))


RESOURCE = Resource(
    path="/v1/api-keys",
    name="API key",
    record=ApiKey,
    view=API_KEY,
    list_by=PEOPLE,
    read_by=NO_ROLE,
    create_by=PEOPLE,
    update_by=PEOPLE,
    delete_by=PEOPLE,
    visible=_visible,
    listed=_listed,
    list_query=(
        QueryParameter(name="all", shape=Boolean(), note="Of all users, for administrators; else one's own."),
    ),
    selection=ListSelection(
        filters=(equal("user_id", Integer(), many=True),),
        search=lambda key: (key.name,),
    ),
    create_body=Document(name="ApiKeyCreate", fields=_FIELDS, required=("name",), note=_NOTE),
    create=_create,
    created=document_view("NewApiKey", API_KEY, {"value": Text(secret=True)}, _shown),
    update_body=Document(name="ApiKeyUpdate", fields=_FIELDS, note=f"Fields that are not sent stay. {_NOTE}"),
    update=_update,
    delete=_delete,
)
