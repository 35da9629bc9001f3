"""A GGUF cut into shards the way llama.cpp names and numbers them."""

from __future__ import annotations

from pathlib import Path

import gguf


def split_gguf(source: Path, folder: Path, shards: int) -> list[Path]:
    """Write ``<stem>-0000i-of-0000n.gguf`` into ``folder`` and return them in order.

    The first shard carries the metadata; engines load the model by it. The tensors are shared out evenly, so
    there may be fewer shards than asked for when there are few tensors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reader = gguf.GGUFReader(source)
    architecture = str(reader.fields["general.architecture"].contents())
    each = -(-len(reader.tensors) // shards)
    writer = gguf.GGUFWriter(folder / source.name, architecture, split_max_tensors=each)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        inner = field.types[-1] if field.types[0] is gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob(f"{source.stem}-*-of-*.gguf"))
