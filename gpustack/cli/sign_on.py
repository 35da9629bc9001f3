"""The other party that people sign in by, as the options say."""

from __future__ import annotations

from gpustack.api.context import SignOn
from gpustack.config.options import Options
from gpustack.identity.external import Naming


def sign_on_of(options: Options) -> SignOn:
    """What the API is told of it."""
    groups = frozenset(options.external_auth_admin_groups)
    return SignOn(
        naming=Naming(
            username=options.external_auth_name,
            full_name=options.external_auth_full_name,
            avatar_url=options.external_auth_avatar_url,
            groups=options.external_auth_groups,
        ),
        admin_groups=groups or None,
    )
