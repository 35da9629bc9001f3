"""Asks the kernel by netlink for one TCP socket of this machine: ``sock_diag(7)``, ``linux/inet_diag.h``."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from functools import cache
from pathlib import Path
from typing import Final

import attrs

from gpustack.http1.address import AddressPair, Ip

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_NLMSG_ERROR: Final = 2
_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_REQUEST: Final = struct.Struct("=BBBBI")  # inet_diag_req_v2 up to its id: family, protocol, ext, pad, states
_PORTS: Final = struct.Struct(">HH")
_COOKIE: Final = struct.pack("=III", 0, 2**32 - 1, 2**32 - 1)  # any interface; INET_DIAG_NOCOOKIE, twice
# inet_diag_msg: family, state, …, id, expires, queues, uid, inode
_ANSWER: Final = struct.Struct("=BBBB48s5I")
_ADDRESSES: Final = slice(4, 36)  # in the id, after the ports
_ANY_STATE: Final = 2**32 - 1
_SEQUENCE: Final = 1
_LONGEST: Final = 8192
_ALL_USERS: Final = ["0", "0", str(2**32 - 1)]
_WITHIN: Final = 0.1
"""Seconds. The kernel answers within the call that asks."""

ALIVE: Final = frozenset({1, 4, 5})
"""ESTABLISHED, FIN_WAIT1 and FIN_WAIT2: the states that the socket of a program that sent us a request can have.

A listening socket, or one that is just connecting, has none of them.
"""


@attrs.frozen
class DiagSocket:
    """What the kernel tells about a socket."""

    state: int
    user: int
    inode: int

    @property
    def owner(self) -> int | None:
        """Its user; ``None`` for a socket that its program has closed: the kernel then says root, and no inode."""
        return user_of(self.user) if self.state in ALIVE and self.inode else None


def user_of(number: int) -> int | None:
    """The user with the kernel's ``number``; ``None`` for the number that means a user unknown in our namespace."""
    return None if number == _overflow() and not _knows_all_users() else number


def owner_by_netlink(ends: AddressPair) -> int | None:
    """The user of the socket at ``ends.there``; ``None`` where no program of this network namespace holds it.

    Raises ``OSError`` where the kernel does not tell.
    """
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "there is no sock_diag here")
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
    ) as kernel:
        kernel.settimeout(_WITHIN)
        found = _ask(kernel, ends)
        if found is not None:
            return found.owner
        # The kernel answers the same for a missing socket and for a missing module. Our own socket does exist.
        if _ask(kernel, ends.turned) is None:
            raise OSError(errno.ENOSYS, "sock_diag knows no TCP here, or not this network namespace")
        return None


def _ask(kernel: socket.socket, ends: AddressPair) -> DiagSocket | None:
    """The socket with this end as its own, ``None`` where there is none. Raises ``OSError``."""
    request = _REQUEST.pack(ends.family, socket.IPPROTO_TCP, 0, 0, _ANY_STATE) + _id_of(ends)
    header = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, _SEQUENCE, 0)
    kernel.sendto(header + request, (0, 0))
    data, sender = kernel.recvfrom(_LONGEST)
    if len(data) < _HEADER.size or sender[0] != 0:
        raise OSError(errno.EBADMSG, "this is no answer of the kernel")
    _length, kind, _flags, sequence, _port = _HEADER.unpack_from(data)
    body = data[_HEADER.size :]
    if sequence != _SEQUENCE:
        raise OSError(errno.EBADMSG, "this answers another question")
    if kind == _NLMSG_ERROR:
        code = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else errno.EBADMSG
        if code == errno.ENOENT:
            return None
        raise OSError(code, "the kernel tells nothing of this socket")
    if kind != _SOCK_DIAG_BY_FAMILY or len(body) < _ANSWER.size:
        raise OSError(errno.EBADMSG, "this is no answer of sock_diag")
    _family, state, _timer, _retransmits, socket_id, _expires, _received, _sent, user, inode = (
        _ANSWER.unpack_from(body)
    )
    if socket_id[: _PORTS.size] != _PORTS.pack(ends.there[1], ends.here[1]):
        return None  # another socket, such as a listening one, to which the packets would go
    return DiagSocket(state, user, inode)


def _id_of(ends: AddressPair) -> bytes:
    """``inet_diag_sockid``."""
    ports = _PORTS.pack(ends.there[1], ends.here[1])
    return ports + _packed(ends.there[0]) + _packed(ends.here[0]) + _COOKIE


def _packed(ip: Ip) -> bytes:
    return ip.packed.ljust(16, b"\0")


@cache
def _overflow() -> int:
    """The number that stands for users unknown in our namespace."""
    try:
        return int(Path("/proc/sys/kernel/overflowuid").read_text())
    except (OSError, ValueError):
        return 65534


@cache
def _knows_all_users() -> bool:
    """Whether every user of the machine has a number here, as outside of user namespaces."""
    try:
        return Path("/proc/self/uid_map").read_text().split() == _ALL_USERS
    except OSError:
        return False
