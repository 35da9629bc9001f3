"""Ray, under vLLM over several workers: where its head is, and what a machine says of the Ray it runs."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import attrs

from .record import Record, stored

ONLY: Final = "head"
"""The name of the one record of a head that there can be."""


@stored("ray_heads", unique=(("name",),))
@attrs.frozen(kw_only=True)
class RayHead(Record):
    """The head of the cluster's Ray, run by the leading server. It is on record only while it is up.

    Another ``incarnation`` is another Ray: a node of the former one cannot stay, and is started anew.
    """

    name: str = ONLY
    address: str
    """``host:port`` of its GCS, as nodes and drivers reach it."""
    incarnation: str
    ray_version: str | None = None
    """``None`` where the program did not say; nodes then do not compare."""
    server_uuid: str = ""
    """The server that runs it."""
    worker_uuid: str = ""
    """The worker of the same daemon, whose devices the head offers. Empty for a server without a worker."""

    @property
    def host(self) -> str:
        """The address without port and brackets."""
        return self.address.rpartition(":")[0].strip("[]")


class RayState(StrEnum):
    """How Ray is on a machine."""

    STARTING = "starting"
    UP = "up"
    DOWN = "down"


@attrs.frozen(kw_only=True)
class RayNodeStatus:
    """The Ray of one machine, as its daemon sees it. A worker without ``--enable-ray`` has none."""

    state: RayState
    head: bool = False
    """Whether it is the head."""
    message: str = ""
    """Why it is not up, with what to do."""
    address: str | None = None
    """``host:port`` of the head that it is, or belongs to."""
    incarnation: str | None = None
