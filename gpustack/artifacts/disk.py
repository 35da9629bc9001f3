"""The threads in which model files are read and written."""

from __future__ import annotations

from gpustack.nursery.limiter import threads

disk = threads("model files", 8)
