"""What an account, or one of its keys, may use. (The limits of a model are a field of the model.)"""

from __future__ import annotations

from gpustack.domain.access import ApiKey, Limits, User
from gpustack.domain.snapshot import Snapshot
from gpustack.store.transaction import Tx

from ..manifest import ManifestKind
from ..problems import MalformedRequest
from ..shape import LIMITS, Document, Nullable, Text
from ..view import Doc, plain


def _all(snapshot: Snapshot) -> dict[str, Doc]:
    owners = {key: user.username for key, user in snapshot.users.items()}
    of_users = [_document(user.username, None, user.limits) for user in snapshot.users.values()]
    of_keys = [
        _document(owners[key.user_id], key.name, key.limits)
        for key in snapshot.api_keys.values()
        if key.user_id in owners
    ]
    return {_called(document): document for document in (*of_keys, *of_users)}


def _document(user: str, key: str | None, limits: Limits | None) -> Doc:
    return {"user": user, "key": key, "limits": plain(limits)}


def _write(tx: Tx, document: Doc, by: str) -> User | ApiKey:
    name, key_name, limits = document["user"].strip(), document["key"], document["limits"]
    limits = None if limits == Limits() else limits
    user = tx.find(User, username=name)
    if user is None:
        raise MalformedRequest(f"user: there is no account {name!r}")
    if key_name is None:
        return tx.change(User, user.id, limits=limits)
    key = tx.find(ApiKey, user_id=user.id, name=key_name)
    if key is None:
        raise MalformedRequest(f"key: {name} has no key {key_name!r}")
    return tx.change(ApiKey, key.id, limits=limits)


def _called(document: Doc) -> str:
    user, key = str(document["user"]).strip(), document.get("key")
    return user if key is None else f"{user}/{key}"


KIND = ManifestKind(
    name="Limits",
    rank=2,
    body=Document(
        name="LimitsManifest",
        fields={
            "user": Text(shortest=1, longest=255),
            "key": Nullable(Text(shortest=1, longest=255)),
            "limits": LIMITS,
        },
        required=("user",),
    ),
    defaults={"key": None, "limits": None},
    named_by=("user",),
    called=_called,
    all=_all,
    write=_write,
    says_something=lambda document: document["limits"] is not None,
)
