"""Give an account a new random password, to be changed at its next login.

Usage:
  gpustack reset-admin-password [options]

Run on the machine of the server, by root or the user that it runs as, it is the administrator's; elsewhere it is the
owner's of the API key.

Options:
  -s, --server-url=URL  The server (default: GPUSTACK_SERVER_URL, else the one on this machine).
  --api-key=KEY         Your key; better in GPUSTACK_API_KEY, which other users of this machine cannot see.
  --dry-run             Only tell what would be changed.
  -h, --help            Show this help.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gpustack.cli.command_line import read
from gpustack.cli.session import open_session
from gpustack.errors import Forbidden, Unauthorized

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print the new password once it holds."""
    command_line = read(__doc__, "reset-admin-password", argv)
    from gpustack.config.secret import make_password

    session = open_session(env, url=command_line.text("--server-url"), key=command_line.text("--api-key"))
    password = make_password(random.SystemRandom())
    try:
        name = session.run(lambda client: _reset(client, password))
    except (Unauthorized, Forbidden) as error:
        raise type(error)(
            "The server does not take you for an administrator: run this on its machine with sudo, or as the user that "
            "it runs as, or with the key of an administrator in GPUSTACK_API_KEY (needed always when the server runs "
            "with --force-auth-localhost)"
        ) from error
    print(f"The new password of {name} is: {password}")
    return 0


async def _reset(client: AdminClient, password: str) -> str:
    me = await client.get("/v1/users/me")
    await client.update(f"/v1/users/{me['id']}", {"password": password, "require_password_change": True})
    return str(me["username"])
