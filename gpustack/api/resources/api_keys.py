"""API keys: everybody's own. The secret is shown once and only its hash is kept."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import attrs

from gpustack.domain.access import ApiKey, Principal
from gpustack.errors import AlreadyExists, Forbidden
from gpustack.identity.keys import hash_secret, make_api_key
from gpustack.store.transaction import Tx

from ..limits import LIMITS
from ..listing import Selection
from ..problems import Malformed
from ..resource import NOBODY, Resource, document_view
from ..route import PEOPLE, Call
from ..shape import Document, Maybe, Text, Whole
from ..wire import API_KEY, Look

_LONGEST = 100 * 365 * 86400


@attrs.frozen
class _New:
    key: ApiKey
    value: str = attrs.field(repr=False)


def _visible(principal: Principal, key: ApiKey) -> bool:
    return key.user_id == principal.user_id


def _shown(new: _New, look: Look) -> dict[str, Any]:
    return {**API_KEY.of(new.key, look), "value": new.value}


async def _create(call: Call) -> _New:
    document, user_id = call.document, call.caller.user_id
    if user_id is None:
        raise Forbidden
    name = document["name"].strip()
    if not name:
        raise Malformed("name: must not be empty")
    access, secret, value = make_api_key(call.context.rng)
    seconds = document.get("expires_in")
    key = ApiKey(
        name=name,
        user_id=user_id,
        access_key=access,
        secret_hash=hash_secret(call.context.keys, secret),
        description=document.get("description"),
        expires_at=call.context.clock() + timedelta(seconds=seconds) if seconds else None,
        limits=document.get("limits"),
    )

    def work(tx: Tx) -> ApiKey:
        if tx.find(ApiKey, user_id=user_id, name=name) is not None:
            raise AlreadyExists(f"API key '{name}' already exists")
        return tx.insert(key)

    return _New(await call.context.store.write(work), value)


async def _delete(call: Call, key: ApiKey) -> None:
    await call.context.store.write(lambda tx: tx.delete(ApiKey, key.id))


RESOURCE = Resource(
    path="/v1/api-keys",
    name="API key",
    record=ApiKey,
    view=API_KEY,
    list_by=PEOPLE,
    read_by=NOBODY,
    create_by=PEOPLE,
    update_by=NOBODY,
    delete_by=PEOPLE,
    visible=_visible,
    selection=Selection(search=lambda key: (key.name,)),
    create_body=Document(
        name="ApiKeyCreate",
        fields={
            "name": Text(shortest=1, longest=255),
            "description": Maybe(Text(longest=4096)),
            "expires_in": Maybe(Whole(least=0, most=_LONGEST)),
            "limits": LIMITS,
        },
        required=("name",),
        note="expires_in: seconds from now; 0 or none is never.",
    ),
    create=_create,
    created=document_view("NewApiKey", API_KEY, {"value": Text(secret=True)}, _shown),
    delete=_delete,
)
