"""Who may use which model, and which key may give which rights to another."""

from __future__ import annotations

from collections.abc import Collection

import attrs

from gpustack.domain.access import ApiKey, KeyScope, Limits, Principal, Role
from gpustack.domain.model import Model, ModelAccess
from gpustack.errors import GpustackError, NotFound, Unauthorized

INFERENCE = frozenset({KeyScope.INFERENCE})
READING = frozenset({KeyScope.READ, KeyScope.MANAGEMENT})
CHANGING = frozenset({KeyScope.MANAGEMENT})
LISTING_MODELS = INFERENCE | READING
"""Sets of scopes of which a key needs one: to use models, to read or to change through the management API, and to list
the models that it may use."""

# Every request asks: looking up a member of an enum would double the cost.
_PUBLIC, _AUTHED = ModelAccess.PUBLIC, ModelAccess.AUTHED
_ADMIN, _USER = Role.ADMIN, Role.USER


def may_use(principal: Principal, name: str, access: ModelAccess, allowed_user_ids: Collection[int]) -> bool:
    """Whether the principal may use the model. Every request for a model asks this.

    A key's own list holds for public models too, and for administrators.
    """
    if principal.allowed_models is not None and name not in principal.allowed_models:
        return False
    if access is _PUBLIC or principal.role is _ADMIN:
        return True
    if principal.role is not _USER:
        return False
    return access is _AUTHED or principal.user_id in allowed_user_ids


def may_see(principal: Principal, model: Model) -> bool:
    """``may_use`` of a model's record."""
    return may_use(principal, model.name, model.access, model.allowed_user_ids or ())


def unknown(principal: Principal, name: str) -> GpustackError:
    """The error for a model that the principal may not use: the same as if there were none."""
    if principal.role is Role.ANYBODY:
        return Unauthorized()
    return NotFound(f"Model not found: no model named '{name}' is deployed")


def not_serving(name: str) -> GpustackError:
    """The error for a model that the principal may use and no replica serves at the moment."""
    return NotFound(
        f"Model not available: '{name}' is deployed, but none of its replicas serves at the moment"
    )


def excess(own: ApiKey, other: ApiKey) -> str | None:
    """What ``other`` may and ``own`` may not, as a sentence; ``None`` when it is no more.

    The holder of a key must not get more rights, or time, by making another key with it.
    """
    if not _covers(_scopes(own), _scopes(other)):
        return "This API key cannot give scopes that it does not have"
    if not _covers(_names(own), _names(other)):
        return "This API key cannot give models that it may not use itself"
    if own.expires_at is not None and (other.expires_at is None or other.expires_at > own.expires_at):
        return "This API key cannot give more time than it has itself: set expires_in"
    if other.id != own.id and (own.limits or Limits()) != Limits() and _infers(other):
        return (
            "This API key has limits, which another one would have anew: log in, or use a key without limits"
        )
    if other.id == own.id and _loosens(own.limits, other.limits):
        return "This API key cannot loosen its own limits"
    return None


def _loosens(before: Limits | None, after: Limits | None) -> bool:
    """Whether any limit of ``after`` is wider than in ``before``."""
    pairs = [
        (getattr(before or Limits(), field.name), getattr(after or Limits(), field.name))
        for field in attrs.fields(Limits)
    ]
    return any(old is not None and (new is None or new > old) for old, new in pairs)


def _infers(key: ApiKey) -> bool:
    return key.scopes is None or KeyScope.INFERENCE in key.scopes


def _scopes(key: ApiKey) -> frozenset[str] | None:
    if key.scopes is None:
        return None
    return frozenset(key.scopes) | (READING if KeyScope.MANAGEMENT in key.scopes else frozenset())


def _names(key: ApiKey) -> frozenset[str] | None:
    return None if key.allowed_models is None else frozenset(key.allowed_models)


def _covers(own: frozenset[str] | None, other: frozenset[str] | None) -> bool:
    return own is None or (other is not None and other <= own)
