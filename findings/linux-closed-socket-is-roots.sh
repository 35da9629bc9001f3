#!/usr/bin/env bash
# The kernel says of a TCP socket that its program has closed that it is root's.
#
# Surprise:  sock_diag(7) and /proc/net/tcp tell the user of a socket. When the program closes it, and the connection lives on
#            (what was sent waits to be read, FIN_WAIT2), the user becomes 0: not "unknown", but root's number. Only the
#            inode, which becomes 0 too, says that nobody holds it.
# Bites:     whoever asks the kernel which user is at the other end of a loopback connection: a client that has sent its
#            request and given up is told as root.
# Versions:  Linux 6.18; no package. Other kernels were not tried.
# We:        believe the user only with an inode: gpustack/hardware/sock_diag.py.
source "$(dirname "$0")/fresh.sh"
fresh
try <<'PYTHON'
import encodings.idna  # noqa: F401  # before the user changes: another one may not read Python's own files
import os
import socket
import struct
import time

import report

report.versions()
USER = os.getuid() or 65534
"""Who connects: whoever runs this; root has another user do it."""


def by_proc(here, there):
    """State, user and inode."""
    for line in open("/proc/net/tcp").read().splitlines()[1:]:
        fields = line.split()
        ends = [int(end.split(":")[1], 16) for end in fields[1:3]]
        if ends == [here, there]:
            return int(fields[3], 16), int(fields[7]), int(fields[9])


def by_sock_diag(here, there):
    """State, user and inode, by inet_diag_req_v2."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 4) as kernel:
        kernel.settimeout(5)
        loopback = socket.inet_aton("127.0.0.1").ljust(16, b"\0")
        ends = struct.pack(">HH", here, there) + loopback * 2 + struct.pack("=III", 0, 2**32 - 1, 2**32 - 1)
        question = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 2**32 - 1) + ends
        kernel.sendto(struct.pack("=IHHII", 16 + len(question), 20, 1, 1, 0) + question, (0, 0))
        answer = kernel.recv(8192)
    assert struct.unpack_from("=H", answer, 4) == (20,), "the kernel does not tell"
    return (answer[17], *struct.unpack_from("=II", answer, 16 + 64))


def told(ask):
    state, user, inode = ask(port, listener.getsockname()[1])
    names = {1: "ESTABLISHED", 4: "FIN_WAIT1", 5: "FIN_WAIT2"}
    who = {USER: "the client's user", 0: "root"}
    return names[state], who[user], "an inode" if inode else "no inode"


listener = socket.create_server(("127.0.0.1", 0))
go, connected = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    if os.getuid() != USER:
        os.setgroups([])
        os.setgid(USER)
        os.setuid(USER)
    client = socket.socket()
    client.settimeout(20)
    client.connect(listener.getsockname())
    client.sendall(b"a request")
    os.write(connected[1], struct.pack("=H", client.getsockname()[1]))
    os.read(go[0], 1)
    client.close()
    os._exit(0)
os.close(connected[1])
os.close(go[0])
listener.settimeout(20)
accepted, _ = listener.accept()
accepted.settimeout(20)
(port,) = struct.unpack("=H", os.read(connected[0], 2))
for way in (by_proc, by_sock_diag):
    alive = ("ESTABLISHED", "the client's user", "an inode")
    report.observe(f"a connected client, {way.__name__}", expected=alive, recorded=alive, seen=told(way))
os.write(go[1], b".")
os.waitpid(child, 0)
deadline = time.monotonic() + 20
while told(by_proc)[0] != "FIN_WAIT2" and time.monotonic() < deadline:
    time.sleep(0.05)
for way in (by_proc, by_sock_diag):
    report.observe(
        f"it has closed, its request is not read yet, {way.__name__}",
        expected=("FIN_WAIT2", "the client's user", "no inode"),
        recorded=("FIN_WAIT2", "root", "no inode"),
        seen=told(way),
    )
report.observe("what it sent can still be read", expected=b"a request", recorded=b"a request", seen=accepted.recv(100))
accepted.close()
report.conclude()
PYTHON
