"""The table of all routes: the modules of ``resources/``, and those that belong to no resource."""

from __future__ import annotations

from gpustack.plugins import siblings

from . import debug, health, home, login
from .docs_pages import docs_routes
from .resource import routes_of
from .route import ApiRoute


def all_routes(*, docs: bool = True) -> tuple[ApiRoute, ...]:
    """Every route of the API. A module of ``resources/`` brings a ``RESOURCE``, or ``ROUTES`` of its own."""
    made: list[ApiRoute] = [*home.ROUTES, *health.ROUTES, *login.ROUTES]
    for module in siblings("gpustack.api.resources"):
        if hasattr(module, "RESOURCE"):
            made.extend(routes_of(module.RESOURCE))
        made.extend(getattr(module, "ROUTES", ()))
    made.extend(debug.ROUTES)
    return (*made, *docs_routes(made)) if docs else tuple(made)
