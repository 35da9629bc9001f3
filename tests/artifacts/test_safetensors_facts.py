"""What a repository of safetensors is, is known from its configuration and the headers of its shards."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from gpustack.artifacts.headers.facts_reader import FactsReader
from gpustack.artifacts.headers.folder_reader import MOST_SHARDS
from gpustack.artifacts.headers.gguf import HeaderError, TruncatedHeader
from gpustack.artifacts.headers.model_config import MOST_CONFIG
from gpustack.artifacts.headers.safetensors import MOST_HEADER, parse
from gpustack.artifacts.source import ModelScopeAccess
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.document import decode, encode
from gpustack.domain.facts import CacheKind, FileFormat, LayerCache, ModelFacts
from gpustack.domain.model import Category
from gpustack.errors import BadRequest, Forbidden
from tests.fakes.hub import Hub
from tests.fakes.modelscope import running_modelscope
from tests.models.hollow_folder import make_hollow_folder, write_shard


def reader(hub: Hub | None = None) -> FactsReader:
    return FactsReader(
        clock=lambda: 0.0, rng=random.Random(1), endpoint=None if hub is None else hub.url, deadline=60.0
    )


def local(path: Path) -> ModelSource:
    return ModelSource(kind=SourceKind.LOCAL_PATH, local_path=str(path))


REMOTE = ModelSource(kind=SourceKind.HUGGING_FACE, huggingface_repo_id="me/m")


def publish(hub: Hub, folder: Path, **details: Any) -> None:
    """Put a folder on the hub."""
    files = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
    hub.add("me/m", files, **details)


def make(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Any], **documents: object) -> Path:
    """A folder with a configuration, one file of weights, and further JSON documents by the stems of their names."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_shard(folder / "model.safetensors", tensors)
    for stem, document in documents.items():
        (folder / f"{stem}.json").write_text(json.dumps(document))
    return folder


async def facts_of_config(folder: Path, config: Mapping[str, Any]) -> ModelFacts:
    layers = range(config.get("num_hidden_layers", 2))
    tensors = {f"model.layers.{n}.mlp.up_proj.weight": ("BF16", (4, 4)) for n in layers}
    return await reader().read(local(make(folder, config, tensors)))


async def test_thirty_shards_at_a_hub_cost_one_request_each_and_two_more(hub: Hub, tmp_path: Path) -> None:
    weights = make_hollow_folder(tmp_path / "m", "llama-3.3-70b", shards=30)
    publish(hub, tmp_path / "m")
    with trio.fail_after(60):
        far = await reader(hub).read(REMOTE)
        near = await reader().read(local(tmp_path / "m"))
    assert far == near
    assert (far.weights, far.split_count, far.total_layers) == (weights, 30, 80)
    assert (far.category, far.architecture, far.dtype) == (Category.LLM, "LlamaForCausalLM", "bfloat16")
    assert far.is_complete
    asked = [request for request in hub.log if request.status in (200, 206)]
    assert len(asked) <= 3 + 30
    assert sum(request.sent for request in asked) < 8 << 20


async def test_layers_are_told_apart_by_what_devices_divide_and_what_they_copy(tmp_path: Path) -> None:
    make_hollow_folder(tmp_path / "m", "llama-3.1-8b", shards=2)
    facts = await reader().read(local(tmp_path / "m"))
    assert facts.tensors is not None
    attention, norms = 2 * 4096 * (4096 + 4096 + 2 * 1024), 2 * 2 * 4096
    layer = attention + 2 * 3 * 4096 * 14336 + norms
    assert facts.tensors.layers == (layer,) * 32
    assert facts.tensors.replicated == (norms,) * 32
    assert facts.tensors.key_value == (2 * 2 * 4096 * 1024,) * 32
    assert facts.tensors.token_embedding == facts.tensors.output == 2 * 128256 * 4096
    assert facts.tensors.total == facts.weights
    assert set(facts.caches) == {
        LayerCache(layer=n, kind=CacheKind.FULL, heads=8, width=256) for n in range(32)
    }


async def test_facts_survive_the_way_from_a_worker_to_the_server(tmp_path: Path) -> None:
    make_hollow_folder(tmp_path / "m", "gemma-3-4b")
    facts = await reader().read(local(tmp_path / "m"))
    assert decode(encode(facts), ModelFacts) == facts


async def test_a_quantisation_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    said = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}
    tensors = {"model.layers.0.mlp.up_proj.weight": ("F8_E4M3", (4, 4))}
    config = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 1}
    facts = await reader().read(local(make(tmp_path / "m", config, tensors, hf_quant_config=said)))
    assert (facts.quantisation, facts.quantisation_format) == ("modelopt", "fp8")


async def test_other_weights_beside_safetensors_and_in_folders_within_are_not_counted(
    hub: Hub, tmp_path: Path
) -> None:
    weights = make_hollow_folder(tmp_path / "m", "qwen3-0.6b", shards=3)
    (tmp_path / "m" / "pytorch_model.bin").write_bytes(b"p" * 4000)
    (tmp_path / "m" / "m-Q4.gguf").write_bytes(b"GGUF")
    (tmp_path / "m" / "onnx").mkdir()
    write_shard(tmp_path / "m" / "onnx" / "model.safetensors", {"x": ("F32", (1000,))})
    write_shard(tmp_path / "m" / "consolidated.safetensors", {"x": ("F32", (1000,))})
    publish(hub, tmp_path / "m")
    for facts in (await reader().read(local(tmp_path / "m")), await reader(hub).read(REMOTE)):
        assert (facts.weights, facts.split_count, facts.format) == (weights, 3, FileFormat.SAFETENSORS)


async def test_modelscope_is_read_as_other_hubs_are(tmp_path: Path) -> None:
    config = {"architectures": ["Qwen3ForCausalLM"], "num_hidden_layers": 1, "hidden_size": 8}
    tensors = {"model.layers.0.mlp.up_proj.weight": ("BF16", (16, 8))}
    folder = make(tmp_path / "m", config, tensors)
    with running_modelscope() as site, trio.fail_after(60):
        site.add("me/m", {path.name: path.read_bytes() for path in folder.iterdir()})
        source = ModelSource(kind=SourceKind.MODEL_SCOPE, model_scope_model_id="me/m")
        access = ModelScopeAccess(endpoint=site.url)
        facts = await FactsReader(clock=lambda: 0.0, rng=random.Random(1), model_scope=access).read(source)
    assert (facts.weights, facts.category, facts.total_layers) == (256, Category.LLM, 1)


@pytest.mark.parametrize("indexed", [True, False])
async def test_a_missing_shard_is_named(tmp_path: Path, indexed: bool) -> None:
    make_hollow_folder(tmp_path / "m", "qwen3-0.6b", shards=3)
    if not indexed:
        (tmp_path / "m" / "model.safetensors.index.json").unlink()
    (tmp_path / "m" / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(BadRequest, match=r"model-00002-of-00003.safetensors is missing"):
        await reader().read(local(tmp_path / "m"))


async def test_a_shard_that_lacks_its_end_is_told(tmp_path: Path) -> None:
    make_hollow_folder(tmp_path / "m", "qwen3-0.6b", shards=2)
    path = tmp_path / "m" / "model-00002-of-00002.safetensors"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    with pytest.raises(BadRequest, match=r"model-00002-of-00002.safetensors is cut short: it has \d+ bytes"):
        await reader().read(local(tmp_path / "m"))


async def test_a_gated_repository_says_what_to_do(hub: Hub, tmp_path: Path) -> None:
    make_hollow_folder(tmp_path / "m", "qwen3-0.6b")
    publish(hub, tmp_path / "m", gated=True)
    with pytest.raises(Forbidden, match="accept the model's terms there, and set"):
        await reader(hub).read(REMOTE)


async def test_numbers_that_only_python_writes_or_that_are_absurd_count_as_missing(tmp_path: Path) -> None:
    config = {"num_hidden_layers": 2, "time_step_limit": [0.0, float("inf")], "hidden_size": float("nan")}
    facts = await facts_of_config(tmp_path / "m", config)
    assert (facts.total_layers, facts.embedding_length) == (2, None)
    absurd = {"num_hidden_layers": 1, "model_type": "mamba2", "hidden_size": 64, "expand": -1e308}
    assert (await facts_of_config(tmp_path / "m", absurd)).caches


async def test_text_models_within_others_are_found(tmp_path: Path) -> None:
    text = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    for nested in (
        {"text_config": text},
        {"llm_config": text},
        {"language_config": text},
        {"thinker_config": {"text_config": text}},
    ):
        config = {"architectures": ["Gemma3ForConditionalGeneration"], "hidden_size": 9, **nested}
        facts = await facts_of_config(tmp_path / "m", config)
        assert (facts.total_layers, facts.embedding_length, facts.kv_heads) == (2, 64, (2,)), nested


async def test_towers_drafts_and_heads_that_are_tied_are_told_apart(tmp_path: Path) -> None:
    config = {
        "num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 1, "vocab_size": 10,
        "tie_word_embeddings": True,
    }  # fmt: skip
    tensors = {
        "model.language_model.embed_tokens.weight": ("BF16", (10, 8)),
        "lm_head.weight": ("BF16", (10, 8)),
        "model.language_model.layers.0.mlp.up_proj.weight": ("BF16", (100, 8)),
        "model.language_model.layers.1.mlp.up_proj.weight": ("BF16", (100, 8)),
        "model.visual.blocks.0.attn.qkv.weight": ("BF16", (3, 8)),
        "model.language_model.layers.0.self_attn.q_norm.weight": ("F32", (8,)),
        "talker.model.layers.0.mlp.up_proj.weight": ("BF16", (7, 7)),
    }
    found = (await reader().read(local(make(tmp_path / "m", config, tensors)))).tensors
    assert found is not None
    assert (found.token_embedding, found.output, found.tied) == (160, 0, True)
    assert (found.layers, found.draft, found.tower) == ((1616,), 1600, 48)
    assert (found.replicated, found.wide) == ((16,), 16)


@pytest.mark.parametrize(
    ("config", "kinds"),
    [
        ({"sliding_window": 4}, "ssss"),
        ({"sliding_window": 4, "use_sliding_window": False}, "ffff"),
        ({"sliding_window": 4, "sliding_window_pattern": 2}, "sfsf"),
        ({"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}, "sfsf"),
        (
            {
                "full_attention_interval": 4,
                "linear_num_value_heads": 2,
                "linear_value_head_dim": 8,
                "linear_key_head_dim": 8,
            },
            "---f",
        ),
        ({"layer_types": ["conv", "conv", "full_attention", "conv"], "conv_L_cache": 3}, "--f-"),
        ({"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 16}, "-f-f"),
        ({"hybrid_override_pattern": "M*-E", "mamba_num_heads": 2, "ssm_state_size": 4}, "-f"),
        ({"linear_attn_config": {"kda_layers": [1, 2, 3], "num_heads": 2, "head_dim": 4}}, "---f"),
        ({"num_kv_shared_layers": 2}, "ff"),
        ({"model_type": "mamba2", "state_size": 4, "num_heads": 2}, "----"),
        ({"model_type": "llama4", "attention_chunk_size": 8}, "sssf"),
        ({"model_type": "bert"}, ""),
    ],
)
async def test_what_layers_keep_is_known_of_each_family(
    tmp_path: Path, config: dict[str, Any], kinds: str
) -> None:
    whole = {"num_hidden_layers": 4, "hidden_size": 32, "num_attention_heads": 4, **config}
    facts = await facts_of_config(tmp_path / "m", whole)
    letters = {CacheKind.FULL: "f", CacheKind.SLIDING: "s", CacheKind.STATE: "-"}
    assert "".join(letters[cache.kind] for cache in facts.caches) == kinds
    assert all(cache.state > 0 for cache in facts.caches if cache.kind is CacheKind.STATE)


async def test_latent_attention_keeps_one_vector_for_all_heads(tmp_path: Path) -> None:
    make_hollow_folder(tmp_path / "m", "deepseek-v2-lite", config={"index_head_dim": 128})
    facts = await reader().read(local(tmp_path / "m"))
    assert facts.caches[0] == LayerCache(
        layer=0, kind=CacheKind.FULL, heads=1, width=512 + 64, packed=128 + 4
    )
    assert facts.kv_lora_rank == 512


@pytest.mark.parametrize(
    ("config", "heads", "width", "count"),
    [
        ({"model_type": "minicpm3", "kv_lora_rank": 4, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32,
          "v_head_dim": 64}, 8, 192, 2),
        ({"model_type": "deepseek_v4", "compress_ratios": [4, 4], "head_dim": 512}, 1, 512, 2),
        ({"model_type": "longcat_flash", "kv_lora_rank": 512, "qk_rope_head_dim": 64}, 1, 576, 4),
        ({"model_type": "falcon", "multi_query": True}, 1, 16, 2),
        ({"head_dim": 192, "v_head_dim": 128, "num_key_value_heads": 4}, 4, 320, 2),
        ({"attn_config": {"kv_n_heads": 2}}, 2, 16, 2),
        ({"num_key_value_heads": [4, 2]}, 4, 16, 2),
    ],
)  # fmt: skip
async def test_families_keep_what_their_engines_keep(
    tmp_path: Path, config: dict[str, Any], heads: int, width: int, count: int
) -> None:
    whole = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 8, **config}
    facts = await facts_of_config(tmp_path / "m", whole)
    assert (facts.caches[0].heads, facts.caches[0].width, len(facts.caches)) == (heads, width, count)


@pytest.mark.parametrize(
    ("config", "documents", "category"),
    [
        ({"architectures": ["Qwen3ForCausalLM"]}, {}, Category.LLM),
        ({"architectures": ["SomethingNewForCausalLM"]}, {}, Category.LLM),
        ({"architectures": ["BertModel"], "model_type": "bert"}, {}, Category.EMBEDDING),
        ({"architectures": ["XLMRobertaForSequenceClassification"]}, {}, Category.RERANKER),
        ({"architectures": ["WhisperForConditionalGeneration"]}, {}, Category.SPEECH_TO_TEXT),
        ({"architectures": ["VitsModel"]}, {}, Category.TEXT_TO_SPEECH),
        ({"architectures": ["EagleLlamaForCausalLM"]}, {}, Category.UNKNOWN),
        (
            {"architectures": ["Qwen3ForCausalLM"]},
            {"modules": [{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]},
            Category.EMBEDDING,
        ),
        (
            {"architectures": ["Qwen3ForCausalLM"]},
            {"modules": [{"type": "sentence_transformers.cross_encoder.modules.LogitScore"}]},
            Category.RERANKER,
        ),
        ({}, {"model_index": {"_class_name": "StableDiffusionPipeline"}}, Category.IMAGE),
    ],
)
async def test_the_category_follows_from_architecture_and_modules(
    tmp_path: Path, config: dict[str, Any], documents: dict[str, Any], category: Category
) -> None:
    tensors = {"model.layers.0.mlp.up_proj.weight": ("BF16", (4, 4))}
    facts = await reader().read(local(make(tmp_path / "m", config, tensors, **documents)))
    assert facts.category is category


async def test_pooling_is_read_from_the_module_that_pools(tmp_path: Path) -> None:
    modules = [{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]
    folder = make(tmp_path / "m", {"architectures": ["BertModel"]}, {}, modules=modules)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert (await reader().read(local(folder))).pooling == "cls"


async def test_an_adapter_says_of_what(tmp_path: Path) -> None:
    write_shard(tmp_path / "adapter_model.safetensors", {"a": ("F32", (4, 4))})
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "me/base", "r": 8}')
    facts = await reader().read(local(tmp_path))
    assert (facts.adapter_of, facts.category) == ("me/base", Category.UNKNOWN)


@pytest.mark.parametrize(
    ("said", "method", "layout", "group"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", None, 128),
        ({"quant_method": "gptq", "bits": 4, "group_size": 64}, "gptq", "4 bits", 64),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 128}, "awq", "4 bits", 128),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", "4 bits", None),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "pack-quantized",
                "config_groups": {"group_0": {"weights": {"group_size": 32}}},
            },
            "compressed-tensors",
            "pack-quantized",
            32,
        ),
        (
            {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}},
            "modelopt",
            "nvfp4",
            None,
        ),
    ],
)
async def test_quantised_weights_keep_their_bytes_and_name_their_method(
    tmp_path: Path, said: dict[str, Any], method: str, layout: str | None, group: int | None
) -> None:
    config = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 1, "quantization_config": said}
    tensors = {
        "model.layers.0.mlp.up_proj.qweight": ("I32", (16, 8)),
        "model.layers.0.mlp.up_proj.scales": ("F32", (4, 8)),
    }
    facts = await reader().read(local(make(tmp_path / "m", config, tensors)))
    assert (facts.quantisation, facts.quantisation_format, facts.quantisation_group) == (
        method,
        layout,
        group,
    )
    assert facts.tensors is not None
    assert (facts.tensors.total, facts.tensors.wide, facts.parameters) == (16 * 8 * 4 + 4 * 8 * 4, 0, None)


async def test_code_in_a_repository_is_needed_only_for_what_engines_do_not_know(tmp_path: Path) -> None:
    code = {"auto_map": {"AutoConfig": "configuration.Config"}}
    known = {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", **code}
    strange = {"architectures": ["OddForCausalLM"], "model_type": "odd", **code}
    assert not (await facts_of_config(tmp_path / "m", known)).remote_code
    assert (await facts_of_config(tmp_path / "m", strange)).remote_code


async def test_the_context_is_the_shortest_length_stated_and_stretched_where_positions_are(
    tmp_path: Path,
) -> None:
    for config, context in (
        ({"max_position_embeddings": 4096}, 4096),
        ({"max_position_embeddings": 4096, "seq_length": 2048}, 2048),
        ({"max_position_embeddings": 4096, "model_max_length": 131072}, 131072),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 2.0}}, 8192),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8}}, 131072),
        (
            {
                "max_position_embeddings": 131072,
                "original_max_position_embeddings": 4096,
                "rope_scaling": {"type": "longrope"},
            },
            4096,
        ),
        ({}, None),
    ):
        assert (await facts_of_config(tmp_path / "m", config)).context_length == context, config


def header(document: object) -> bytes:
    text = json.dumps(document).encode()
    return struct.pack("<Q", len(text)) + text


def tensor(**changed: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **changed}


@pytest.mark.attack("parser")
@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"<!DOCTYPE html>", "it is a text"),
        (b"version https://git-lfs", "it is a text"),
        (struct.pack("<Q", MOST_HEADER + 1), "claims a header of"),
        (struct.pack("<Q", 1), "claims a header of"),
        (struct.pack("<Q", 4) + b"xxxx", "no JSON"),
        (struct.pack("<Q", 100_000) + b"[" * 100_000, "no JSON"),
        (header([]), "no JSON object"),
        (header({"a": 1}), "does not describe the tensor 'a'"),
        (header({"a": tensor(dtype="Z9")}), "type of the tensor 'a'"),
        (header({"a": tensor(shape=[-1, 2])}), "shape of the tensor 'a'"),
        (header({"a": tensor(shape=[1] * 9)}), "shape of the tensor 'a'"),
        (header({"a": tensor(data_offsets=[0, 1.5])}), "place of the tensor 'a'"),
        (header({"a": tensor(shape=[1 << 61, 1 << 61])}), "another size"),
        (header({"a": tensor(), "b": tensor()}), "overlap"),
        (header({"a": tensor(data_offsets=[4, 20])}), "overlap, or leave holes"),
    ],
)
def test_a_hostile_header_is_refused_in_a_clause(data: bytes, word: str) -> None:
    with pytest.raises(HeaderError, match=word):
        parse(data)


def test_a_header_that_goes_on_says_how_far() -> None:
    whole = header({"a": tensor()})
    with pytest.raises(TruncatedHeader) as cut:
        parse(whole[:-1])
    assert cut.value.needed == len(whole)
    assert parse(whole).least_file_size == len(whole) + 16


@pytest.mark.attack("parser")
@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": 1 << 40},
        {"num_hidden_layers": 4097},
        {"num_hidden_layers": 2, "hidden_size": "big", "num_attention_heads": [1, {}], "layer_types": 7},
        {
            "num_hidden_layers": -1,
            "rope_scaling": [[]],
            "quantization_config": [1],
            "architectures": {"a": 1},
        },
        {"text_config": {"text_config": {"text_config": {"text_config": {}}}}},
        {"block_configs": [[], 1, {"attention": 3}], "num_hidden_layers": 3},
        {"auto_map": 3, "torch_dtype": 4, "tie_word_embeddings": "yes"},
    ],
)
async def test_an_absurd_configuration_is_refused_or_counts_for_nothing(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    tensors = {"model.layers.0.mlp.up_proj.weight": ("BF16", (4, 4))}
    try:
        facts = await reader().read(local(make(tmp_path / "m", config, tensors)))
    except BadRequest as error:
        assert "claims to have" in str(error)
    else:
        assert facts.weights == 32


@pytest.mark.attack("parser")
async def test_too_many_layers_or_stacks_are_refused(tmp_path: Path) -> None:
    for tensors in (
        {"model.layers.5000.mlp.up_proj.weight": ("BF16", (4, 4))},
        {f"part{n}.layers.0.mlp.up_proj.weight": ("BF16", (4, 4)) for n in range(100)},
    ):
        with pytest.raises(BadRequest, match="layers"):
            await reader().read(local(make(tmp_path / "m", {}, tensors)))


@pytest.mark.attack("parser")
@pytest.mark.parametrize(
    ("index", "word"),
    [
        ({}, "does not say in which files"),
        ({"weight_map": {"a": 1}}, "does not say in which files"),
        ({"weight_map": {"a": "../../etc/passwd"}}, "etc/passwd is missing"),
        ({"weight_map": [1]}, "does not say in which files"),
    ],
)
async def test_an_index_that_names_nothing_or_what_is_not_there_is_refused(
    tmp_path: Path, index: dict[str, Any], word: str
) -> None:
    folder = make(tmp_path / "m", {}, {"a": ("F32", (1,))})
    (folder / "model.safetensors").rename(folder / "part-of-it.safetensors")
    write_shard(folder / "other.safetensors", {"b": ("F32", (1,))})
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadRequest, match=word):
        await reader().read(local(folder))


@pytest.mark.attack("parser")
async def test_documents_and_numbers_of_shards_are_bounded(tmp_path: Path) -> None:
    large = make(tmp_path / "large", {"a": "x" * (MOST_CONFIG + 1)}, {"a": ("F32", (1,))})
    with pytest.raises(BadRequest, match="more than such a file may have"):
        await reader().read(local(large))
    many = tmp_path / "many"
    many.mkdir()
    for number in range(MOST_SHARDS + 1):
        write_shard(many / f"m{number}.safetensors", {})
    with pytest.raises(BadRequest, match=f"has {MOST_SHARDS + 1} files of weights"):
        await reader().read(local(many))
    (many / "config.json").write_text("[" * 100_000)
    with pytest.raises(BadRequest, match=r"config.json cannot be read: it is no JSON"):
        await reader().read(local(many))
