"""API keys, as GPUStack 2.x writes and shows them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gpustack.domain.access import ApiKey, User
from gpustack.domain.snapshot import Snapshot
from gpustack.errors import NotOffered

from ..face import Face
from ..translation import Difference, Doc, Reading, Translation, shown

EVERYTHING = "*"


def _scope(value: Any, reading: Reading) -> Doc:
    """No scope at all is everything, to them and to us."""
    if isinstance(value, list) and (not value or EVERYTHING in value):
        value = None
    return {"scopes": value}


def _shown_scope(document: Doc, snapshot: Snapshot) -> list[str]:
    return list(document.get("scopes") or [EVERYTHING])


def _own_value(value: Any, reading: Reading) -> Doc:
    if value:
        raise NotOffered(
            "A key's value is made here and cannot be chosen: leave out custom, and take value of the answer"
        )
    return {}


def _models(value: Any, reading: Reading) -> Doc:
    return {"allowed_model_names": None if value == [] else value}


def _masked(document: Doc, snapshot: Snapshot) -> str | None:
    key = snapshot.get(ApiKey, document.get("id"))
    return None if key is None else f"gpustack_{key.access_key[:4]}..."


def _owner(document: Doc, snapshot: Snapshot) -> str | None:
    user = snapshot.get(User, document.get("user_id"))
    return None if user is None else user.username


def _user(value: str, reading: Reading) -> Iterable[tuple[str, str]]:
    return (("all", "true"),) if value == EVERYTHING else (("user_id", value),)


FACES = (
    Face(
        path="/v1/api-keys",
        translation=Translation(
            differences=(
                Difference("scope", _scope, _shown_scope),
                Difference("allowed_model_names", _models),
                Difference("custom", _own_value),
                Difference("custom_key", _own_value),
                Difference("masked_value", shows=_masked),
                Difference("user_name", shows=_owner),
                shown("is_custom", False),
            ),
        ),
        views=("ApiKey", "NewApiKey"),
        parameters={"user_id": _user},
    ),
)
