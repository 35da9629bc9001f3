"""The facts about a model of safetensors, from its configuration files and the headers of its shards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from gpustack.artifacts.headers.gguf import HeaderError
from gpustack.artifacts.headers.layer_caches import layer_caches
from gpustack.artifacts.headers.model_config import ModelConfig
from gpustack.artifacts.headers.tensor_tally import MOST_LAYERS, TensorTally
from gpustack.domain.architecture import category_of, is_native
from gpustack.domain.facts import FileFormat, ModelFacts
from gpustack.domain.model import Category

_DTYPES: Mapping[str, str] = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float32"}
_PACKED = ("I32", "U8", "I8", "F4", "U32")


@attrs.frozen(kw_only=True)
class ModelFolder:
    """What was read of a folder, file by file; a document that is not there is ``None``."""

    config: Mapping[str, Any] | None = None
    pooling: str | None = None
    """``rank`` where the modules of the folder score, else how they pool; ``None`` where it has no modules."""
    quantisation: Mapping[str, Any] | None = None
    """From a file of its own beside the configuration."""
    pipeline: bool = False
    """It is a pipeline of diffusers, whose models lie in folders of their own."""
    adapter: Mapping[str, Any] | None = None
    category: Category | None = None
    """What its files alone tell."""


def safetensors_facts(folder: ModelFolder, tally: TensorTally, *, file_size: int, shards: int) -> ModelFacts:
    """The facts of a model. Values of the wrong type or of impossible size count as missing.

    Raises HeaderError when the files claim more than any model has, or contradict themselves.
    """
    try:
        return _facts(folder, tally, file_size, shards)
    except HeaderError:
        raise
    except ValueError as error:
        raise HeaderError(f"it contradicts itself: {error}") from error


def is_quantised(folder: ModelFolder) -> bool:
    """Whether the model was quantised when it was made."""
    return bool(_quantisation(folder))


def _facts(folder: ModelFolder, tally: TensorTally, file_size: int, shards: int) -> ModelFacts:
    known = ModelFacts(
        format=FileFormat.SAFETENSORS if shards else FileFormat.UNKNOWN,
        weights=tally.stored or None,
        file_size=file_size,
        split_count=max(shards, 1),
        category=folder.category,
    )
    if folder.adapter is not None:
        base = folder.adapter.get("base_model_name_or_path")
        named = base[:200] if isinstance(base, str) else ""
        return attrs.evolve(known, adapter_of=named, category=Category.UNKNOWN)
    if folder.pipeline:
        return attrs.evolve(known, category=Category.IMAGE)
    if folder.config is None:
        return known
    return _described(known, folder, ModelConfig.of(folder.config), tally)


def _described(known: ModelFacts, folder: ModelFolder, config: ModelConfig, tally: TensorTally) -> ModelFacts:
    layers, names = config.layers, config.architectures
    if layers is not None and layers > MOST_LAYERS:
        raise HeaderError(f"it claims to have {layers} layers")
    method, layout, group = _method(_quantisation(folder))
    heads, kv_heads = config.heads or 0, config.kv_heads or 0
    tied = config.raw("tie_word_embeddings") is True
    wide = config.counts(
        "intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim", "decoder_ffn_dim", "d_ff"
    )
    return attrs.evolve(
        known,
        architecture=names[0] if names else "",
        model_type=config.model_type,
        category=_category(folder, names) or known.category,
        pooling=folder.pooling,
        parameters=None if method and any(tally.types[kind] for kind in _PACKED) else tally.elements or None,
        quantisation=method,
        quantisation_format=layout,
        quantisation_group=group,
        dtype=config.word("torch_dtype", "dtype") or _DTYPES.get(tally.main_type or ""),
        remote_code=_has_code(config.top) and not is_native(names, config.model_type),
        total_layers=layers,
        context_length=config.context,
        embedding_length=config.hidden,
        feed_forward_length=wide,
        heads=(heads,) if heads else (),
        kv_heads=(kv_heads,) if kv_heads else (),
        key_length=config.head_size,
        vocabulary=config.count("vocab_size", "padded_vocab_size"),
        sliding_window=config.count("sliding_window") or None,
        kv_lora_rank=config.count("kv_lora_rank", "head_dim") if config.is_latent else None,
        expert_count=config.count("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts")
        or 0,
        expert_used_count=config.count(
            "num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k"
        )
        or 0,
        expert_feed_forward_length=config.count("moe_intermediate_size", "expert_hidden_dim"),
        caches=layer_caches(config, names),
        tensors=tally.tensor_bytes(layers, tied=tied, heads=heads, kv_heads=kv_heads),
    )


def _category(folder: ModelFolder, names: tuple[str, ...]) -> Category | None:
    """What the modules beside the model say is worth more than its architecture: embedders are often text models."""
    if folder.pooling is not None:
        return Category.RERANKER if folder.pooling == "rank" else Category.EMBEDDING
    return category_of(names)


def _has_code(document: Mapping[str, Any]) -> bool:
    named = document.get("auto_map")
    return isinstance(named, dict) and any(name.startswith("Auto") for name in named if isinstance(name, str))


def _quantisation(folder: ModelFolder) -> Mapping[str, Any]:
    """The part that describes the quantisation, wherever it stands; empty where there is none."""
    config = folder.config or {}
    inner = ModelConfig.of(config)
    for part in (config, inner.text):
        for name in ("quantization_config", "compression_config", "quantization"):
            found = part.get(name)
            if isinstance(found, dict) and found:
                return found
    return folder.quantisation or {}


def _method(said: Mapping[str, Any]) -> tuple[str | None, str | None, int | None]:
    """The method, its format, and how many weights share a scale."""
    if not said:
        return None, None, None
    inner = said.get("quantization")
    algorithm = said.get("quant_algo", inner.get("quant_algo") if isinstance(inner, dict) else None)
    method = said.get("quant_method")
    name = method if isinstance(method, str) else "modelopt" if isinstance(algorithm, str) else None
    layout = said.get("format", algorithm)
    return (
        None if name is None else name.lower().replace("compressed_tensors", "compressed-tensors")[:40],
        layout.lower()[:60] if isinstance(layout, str) else _bits(said),
        _group(said),
    )


def _bits(said: Mapping[str, Any]) -> str | None:
    """The format of methods that have bits only."""
    if said.get("load_in_4bit") is True:
        return "4 bits"
    if said.get("load_in_8bit") is True:
        return "8 bits"
    bits = said.get("bits", said.get("w_bit"))
    return f"{bits} bits" if type(bits) is int and 0 < bits <= 16 else None


def _group(said: Mapping[str, Any]) -> int | None:
    block = said.get("weight_block_size")
    group = (
        block[0] if isinstance(block, list) and block else said.get("group_size", said.get("q_group_size"))
    )
    groups = said.get("config_groups")
    if group is None and isinstance(groups, dict):
        weights = [one.get("weights") for one in groups.values() if isinstance(one, dict)]
        group = next((one.get("group_size") for one in weights if isinstance(one, dict)), None)
    return group if type(group) is int and 0 < group <= 1 << 16 else None
