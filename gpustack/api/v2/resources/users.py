"""Accounts, as GPUStack 2.x writes and shows them."""

from __future__ import annotations

from gpustack.domain.access import User

from ...resources import users
from ...route import ApiCall, ApiResponse, ApiRoute
from ...shape import Boolean, Document
from ...wire import USER
from ..face import Face
from ..translation import Translation, shown

FACES = (
    Face(
        path="/v1/users",
        translation=Translation(differences=(shown("is_system", False),)),
        views=("User",),
    ),
)


async def _activate(call: ApiCall) -> ApiResponse:
    user: User = users.RESOURCE.item(call)
    assert users.RESOURCE.update is not None
    return users.RESOURCE.respond(call, await users.RESOURCE.update(call, user))


ROUTES = (
    ApiRoute(
        method="PATCH",
        path="/v2/users/{id}/activation",
        summary="Let an account in, or keep it out",
        handler=_activate,
        body=Document(name="UserActivation", fields={"is_active": Boolean()}, required=("is_active",)),
        answer=USER,
        about=User,
        action="user.update",
    ),
)
