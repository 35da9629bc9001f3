"""Accounts: all of them for administrators, one's own for everybody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from gpustack.domain.access import ApiKey, AuthMethod, User
from gpustack.errors import AlreadyExists, BadRequest, Conflict
from gpustack.identity.person import LONGEST_URL, LONGEST_USERNAME, USERNAME_RULE, is_username
from gpustack.server import deployment
from gpustack.server.account import end_sessions, forget_identities
from gpustack.store.transaction import Tx

from ..listing import ListSelection
from ..problems import MalformedRequest
from ..resource import Resource
from ..route import PEOPLE, ApiCall, ApiResponse, ApiRoute
from ..shape import LIMITS, Boolean, Document, JsonShape, Nullable, Text
from ..wire import USER
from .login import hash_chosen

_OWN_FIELDS: dict[str, JsonShape] = {
    "full_name": Nullable(Text(longest=255, one_line=True)),
    "avatar_url": Nullable(Text(longest=LONGEST_URL)),
}


@attrs.frozen(kw_only=True)
class _OwnDocument(Document):
    """What people change of themselves. A password sent along is refused: who sends one takes it for changed."""

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        if isinstance(value, dict):
            faults += [
                f"{name}: a password is changed through POST /auth/update-password, with current_password and "
                "new_password"
                for name in ("password", "current_password", "new_password")
                if value.get(name)
            ]
        return super().read(value, at, faults)


_OWN_BODY = _OwnDocument(name="OwnUserUpdate", fields=_OWN_FIELDS)
_FIELDS: dict[str, JsonShape] = {
    "username": Text(shortest=1, longest=LONGEST_USERNAME),
    "password": Nullable(Text(secret=True)),
    "is_admin": Boolean(),
    "is_active": Boolean(),
    "require_password_change": Boolean(),
    "limits": LIMITS,
    **_OWN_FIELDS,
}


def _plain_fields(document: dict[str, Any]) -> dict[str, Any]:
    fields = {name: value for name, value in document.items() if name != "password"}
    if "username" in fields:
        name = fields["username"] = fields["username"].strip()
        if not is_username(name):
            raise MalformedRequest(f"username: {USERNAME_RULE}")
    return fields


async def _create(call: ApiCall) -> User:
    fields = _plain_fields(call.document)
    if call.document.get("password") is None:
        raise MalformedRequest("password: is missing")
    _refuse_taken(call.snapshot.find(User, username=fields["username"]), None)
    user = User(**fields, hashed_password=await hash_chosen(call.document["password"]))
    return await call.context.store.write(lambda tx: tx.insert(user))


def _refuse_taken(holder: User | None, own_id: int | None) -> None:
    if holder is not None and holder.id != own_id:
        raise AlreadyExists(f"User '{holder.username}' already exists")


async def _update(call: ApiCall, user: User) -> User:
    fields = _plain_fields(call.document)
    if call.document.get("password"):  # a form sends an empty one to leave it as it is
        if not user.hashed_password:
            raise BadRequest("This account has no password here: it is proved by another party")
        fields["hashed_password"] = await hash_chosen(call.document["password"])

    def work(tx: Tx) -> User:
        if "username" in fields:
            _refuse_taken(tx.find(User, username=fields["username"]), user.id)
        before = tx.get(User, user.id)
        changed = tx.change(User, user.id, **fields)
        if before is not None and _rights(before) != _rights(changed):
            end_sessions(tx, user.id)
        _keep_an_admin(tx, changed.username)
        return changed

    return await call.context.store.write(work)


def _rights(user: User) -> tuple[object, ...]:
    return user.is_admin, user.is_active, user.hashed_password


async def _delete(call: ApiCall, user: User) -> None:
    def work(tx: Tx) -> None:
        for key in [key for key in tx.all(ApiKey).values() if key.user_id == user.id]:
            tx.delete(ApiKey, key.id)
        end_sessions(tx, user.id)
        forget_identities(tx, user.id)
        deployment.forget_user(tx, user.id)
        tx.delete(User, user.id)
        _keep_an_admin(tx, user.username)

    await call.context.store.write(work)


def _keep_an_admin(tx: Tx, name: str) -> None:
    if not any(user.is_admin and user.is_active for user in tx.all(User).values()):
        raise Conflict(f"{name} is the last administrator: make somebody else one first")


def _me(then: Callable[[ApiCall, User], Any]) -> Callable[[ApiCall], Any]:
    """Answers with the account as it concerns the caller: on this machine no password is asked for, nor a new one."""

    async def handler(call: ApiCall) -> ApiResponse:
        user = await then(call, call.account)
        if call.caller.means is AuthMethod.LOCAL:
            user = attrs.evolve(user, require_password_change=False)
        return ApiResponse(document=USER.of(user, call.rendering()))

    return handler


async def _read_me(call: ApiCall, user: User) -> User:
    return user


async def _update_me(call: ApiCall, user: User) -> User:
    call.audit.concerns(user)
    call.audit.sets(call.document, _OWN_BODY, USER.of(user, call.rendering()))
    return await call.context.store.write(lambda tx: tx.change(User, user.id, **call.document))


RESOURCE = Resource(
    path="/v1/users",
    name="User",
    record=User,
    view=USER,
    selection=ListSelection(search=lambda user: (user.username, user.full_name)),
    create_body=Document(name="UserCreate", fields=_FIELDS, required=("username", "password")),
    create=_create,
    update_body=Document(name="UserUpdate", fields=_FIELDS, note="Fields that are not sent stay."),
    update=_update,
    delete=_delete,
    routes=(
        ApiRoute(
            method="GET",
            path="/v1/users/me",
            summary="Read one's own account",
            handler=_me(_read_me),
            allow=PEOPLE,
            answer=USER,
            before_password_change=True,
        ),
        ApiRoute(
            method="PUT",
            path="/v1/users/me",
            summary="Change one's own name and picture; passwords are changed elsewhere",
            handler=_me(_update_me),
            allow=PEOPLE,
            body=_OWN_BODY,
            action="user.update",
            answer=USER,
            before_password_change=True,
        ),
    ),
)
