"""The header of a vision projector: enough to tell which model it belongs to, not enough to see with."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np


def make_projector(path: Path, *, width: int, name: str = "", tensor_width: int | None = None) -> Path:
    """Write it to ``path`` and return it: it says that it makes vectors of ``width`` numbers.

    With ``tensor_width`` its last layer makes others, as those of the first converters do.
    """
    writer = gguf.GGUFWriter(path, "clip")
    if name:
        writer.add_name(name)
    writer.add_type("mmproj")
    writer.add_clip_has_vision_encoder(True)
    writer.add_vision_projection_dim(width)
    if tensor_width is not None:
        writer.add_tensor("mm.2.bias", np.zeros(tensor_width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
