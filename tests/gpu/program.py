"""A small CUDA program that needs the driver and nothing else: ``python -m tests.gpu.program VERB``.

``list`` prints the UUIDs of the devices it sees as JSON; ``hold BYTES`` makes a context on the first of them, takes so
many bytes beside it, says ``holding`` and waits to be killed; ``work BYTES`` says ``working`` and writes over them.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import signal
import uuid

NO_DEVICE = 100
LIBRARY = "libcuda.so.1"


class DriverError(Exception):
    """A call into the driver failed."""


def _call(name: str, *arguments: object) -> None:
    code = getattr(ctypes.CDLL(LIBRARY), name)(*arguments)
    if code:
        raise DriverError(f"{name} answered with {code}")


def visible() -> list[str]:
    """UUIDs in CUDA's order, written as the driver's own tools do. Raises DriverError."""
    code = ctypes.CDLL(LIBRARY).cuInit(0)
    if code == NO_DEVICE:
        return []
    if code:
        raise DriverError(f"cuInit answered with {code}")
    count = ctypes.c_int()
    _call("cuDeviceGetCount", ctypes.byref(count))
    return [_uuid(index) for index in range(count.value)]


def _uuid(index: int) -> str:
    device, name = ctypes.c_int(), (ctypes.c_ubyte * 16)()
    _call("cuDeviceGet", ctypes.byref(device), index)
    _call("cuDeviceGetUuid_v2", name, device)
    return f"GPU-{uuid.UUID(bytes=bytes(name))}"


def take(size: int) -> ctypes.c_uint64:
    """Make the context that engines make, on the first device, and ``size`` bytes of its memory ours."""
    _call("cuInit", 0)
    device, context, address = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    _call("cuDeviceGet", ctypes.byref(device), 0)
    _call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    _call("cuCtxSetCurrent", context)
    if size:
        _call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
    return address


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.program", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list")
    for verb in ("hold", "work"):
        verbs.add_parser(verb).add_argument("size", type=int)
    asked = parser.parse_args()
    if asked.verb == "list":
        print(json.dumps(visible()))
        return
    address = take(asked.size)
    print(f"{asked.verb}ing", flush=True)
    if asked.verb == "hold":
        signal.pause()
    while True:
        _call("cuMemsetD8_v2", address, ctypes.c_ubyte(0), ctypes.c_size_t(asked.size))
        _call("cuCtxSynchronize")


if __name__ == "__main__":
    main()
