"""What llama.cpp will allocate for a GGUF: weights, caches and compute buffers, on the host and each device.

Weights and caches come out exact, compute buffers nearly so: `docs/estimates.md` compares them with what the engine
allocates. Facts go in, bytes come out; nothing is read.
"""

from .layout import estimate, layer_count
from .memory import DEVICE_FOOTPRINT, HOST_FOOTPRINT, MemoryEstimate, MemoryNeed, host_footprint
from .settings import GgufSettings

__all__ = [
    "DEVICE_FOOTPRINT",
    "HOST_FOOTPRINT",
    "GgufSettings",
    "MemoryEstimate",
    "MemoryNeed",
    "estimate",
    "host_footprint",
    "layer_count",
]
