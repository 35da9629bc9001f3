"""The tiny chat model in the layout of Hugging Face, with safetensors; adapters for it, an embedder and a reranker.

The chat model is that of ``tiny_llm.py``: the embedding of a token is a one-hot vector, the output head a table of
successors, and what lies between is faint noise.
"""

from __future__ import annotations

import json
import string
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.models.tiny_llm import FEED_FORWARD, HEAD_SIZE, HEADS, KV_HEADS, REPLY, WIDTH
from tests.models.vocabulary import BYTES, CONTROL, END_OF_TURN, START_OF_TEXT, Vocabulary, spell, vocabulary

CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>'
"""A reply that is the call of a tool, as Hermes' models write it."""

_TEMPLATE = (
    "{%- if tools %}{{ '<|im_start|>system\\n' }}"
    "{%- for tool in tools %}{{ (tool | tojson) + '\\n' }}{% endfor %}{{ '<|im_end|>\\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + (message['content'] or '') + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_EMBEDDER_WIDTH = 64
_EMBEDDER_LAYERS = 2
_EMBEDDER_CONTEXT = 512
_MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_WORDS = "a and cat cluster dog document for gpu in is model of on panda query rain server sun the weather who".split()  # noqa: SIM905

Tensors = Mapping[str, np.ndarray]


def make_tiny_folder(folder: Path, reply: str = REPLY, *, layers: int = 2, seed: int = 0) -> Path:
    """Write a chat model that answers ``reply``; returns the folder. The same arguments give the same bytes."""
    words = vocabulary(reply, WIDTH)
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "model.safetensors", _weights(words, layers, seed))
    marks = {"bos_token_id": words.id(START_OF_TEXT), "eos_token_id": words.id(END_OF_TURN)}
    marks["pad_token_id"] = marks["bos_token_id"]
    _dump(folder / "config.json", {**_CONFIG, "num_hidden_layers": layers, **marks})
    _dump(folder / "generation_config.json", marks)
    _dump(folder / "tokenizer.json", _byte_tokenizer(words))
    named = {"bos_token": START_OF_TEXT, "eos_token": END_OF_TURN, "pad_token": START_OF_TEXT}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 8192,
        "add_bos_token": False,
    }
    _dump(folder / "tokenizer_config.json", {**settings, **named, "chat_template": _TEMPLATE})
    return folder


def make_adapter(folder: Path, reply: str = REPLY, *, after: str = " served") -> Path:
    """Write a LoRA of rank 1 for the model of ``reply``: with it the answer begins behind the word ``after``.

    In the first layer it lets one neuron fire on the newline at the end of the prompt, which then adds the word's
    direction, stronger than the newline's own.
    """
    words = vocabulary(reply, WIDTH)
    newline, skipped = words.id(BYTES[ord("\n")]), words.id(spell(after))
    neuron, prompt = np.eye(1, FEED_FORWARD), np.eye(1, WIDTH, newline)
    # A one-hot vector is normed to sqrt(512) = 22.6, so the neuron gives silu(5.7) * 1.1, which is 6.4.
    parts = {
        "gate_proj": (prompt, 0.25 * neuron.T),
        "up_proj": (prompt, 0.05 * neuron.T),
        "down_proj": (neuron, np.eye(1, WIDTH, skipped).T * 4 / 6.4),
    }
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, (down, up) in parts.items():
        prefix = f"base_model.model.model.layers.0.mlp.{name}"
        tensors |= {f"{prefix}.lora_A.weight": down, f"{prefix}.lora_B.weight": up}
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "", "bias": "none"}
    _dump(
        folder / "adapter_config.json",
        {**config, "r": 1, "lora_alpha": 1, "lora_dropout": 0.0, "target_modules": sorted(parts)},
    )
    return folder


def make_embedder_folder(folder: Path, *, rerank: bool = False, seed: int = 0) -> Path:
    """Write a BERT whose vectors are close for texts that share words; with ``rerank`` one that scores pairs."""
    tokens = [*_MARKS, *string.printable[:94], *(f"##{c}" for c in string.printable[:94])]
    tokens += [word for word in _WORDS if word not in tokens]
    folder.mkdir(parents=True, exist_ok=True)
    prefix = "bert." if rerank else ""
    rng = np.random.default_rng(seed)
    tensors = {prefix + name: values for name, values in _bert(len(tokens), rng).items()}
    if rerank:
        tensors |= {
            "classifier.weight": rng.standard_normal((1, _EMBEDDER_WIDTH)),
            "classifier.bias": np.zeros(1),
        }
    write_safetensors(folder / "model.safetensors", tensors)
    kind = "BertForSequenceClassification" if rerank else "BertModel"
    labels = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "num_labels": 1} if rerank else {}
    _dump(
        folder / "config.json",
        {**_BERT_CONFIG, "architectures": [kind], "vocab_size": len(tokens), **labels},
    )
    _dump(folder / "tokenizer.json", _word_tokenizer(tokens))
    named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), _MARKS, strict=True))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": _EMBEDDER_CONTEXT}
    _dump(folder / "tokenizer_config.json", {**settings, **named})
    if not rerank:
        _add_pooling(folder)
    return folder


def write_safetensors(path: Path, tensors: Tensors) -> None:
    """Write them as bfloat16: the upper half of a float32, rounded."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blobs, at = [], 0
    for name, values in tensors.items():
        bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
        blob = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": WIDTH,
    "intermediate_size": FEED_FORWARD,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_SIZE,
    "max_position_embeddings": 8192,
    "vocab_size": WIDTH,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
_BERT_CONFIG = {
    "model_type": "bert",
    "hidden_size": _EMBEDDER_WIDTH,
    "intermediate_size": 2 * _EMBEDDER_WIDTH,
    "num_attention_heads": 2,
    "num_hidden_layers": _EMBEDDER_LAYERS,
    "max_position_embeddings": _EMBEDDER_CONTEXT,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "pad_token_id": 0,
    "torch_dtype": "bfloat16",
}


def _weights(words: Vocabulary, layers: int, seed: int) -> Tensors:
    rng = np.random.default_rng(seed)

    def faint(rows: int, columns: int) -> np.ndarray:
        return rng.standard_normal((rows, columns)) * 0.005

    ones = np.ones(WIDTH)
    found = {"model.embed_tokens.weight": np.eye(WIDTH)}
    for number in range(layers):
        block = f"model.layers.{number}."
        found |= {
            block + "input_layernorm.weight": ones,
            block + "self_attn.q_proj.weight": faint(HEADS * HEAD_SIZE, WIDTH),
            block + "self_attn.k_proj.weight": faint(KV_HEADS * HEAD_SIZE, WIDTH),
            block + "self_attn.v_proj.weight": faint(KV_HEADS * HEAD_SIZE, WIDTH),
            block + "self_attn.o_proj.weight": faint(WIDTH, HEADS * HEAD_SIZE),
            block + "post_attention_layernorm.weight": ones,
            block + "mlp.gate_proj.weight": faint(FEED_FORWARD, WIDTH),
            block + "mlp.up_proj.weight": faint(FEED_FORWARD, WIDTH),
            block + "mlp.down_proj.weight": faint(WIDTH, FEED_FORWARD),
        }
    return {**found, "model.norm.weight": ones, "lm_head.weight": _successors(words)}


def _successors(words: Vocabulary) -> np.ndarray:
    """Row n, column t is 1 where token n follows token t; whatever is not in the reply starts it."""
    newline, end = words.id(BYTES[ord("\n")]), words.id(END_OF_TURN)
    follows = dict.fromkeys(range(WIDTH), words.reply[0])
    follows.update(zip(words.reply, (*words.reply[1:], end), strict=True))
    follows[end] = newline
    table = np.zeros((WIDTH, WIDTH))
    for token, following in follows.items():
        table[following, token] = 1
    return table


def _byte_tokenizer(words: Vocabulary) -> dict[str, Any]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": _added((words.id(mark), mark) for mark in CONTROL),
        "pre_tokenizer": byte_level,
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {token: number for number, token in enumerate(words.tokens)},
            "merges": [merge.split(" ") for merge in words.merges],
        },
    }


def _word_tokenizer(tokens: list[str]) -> dict[str, Any]:
    def mark(name: str) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": 0}}

    def text(name: str, kind: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": kind}}

    return {
        "version": "1.0",
        "added_tokens": _added(enumerate(_MARKS)),
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [mark("[CLS]"), text("A", 0), mark("[SEP]")],
            "pair": [mark("[CLS]"), text("A", 0), mark("[SEP]"), text("B", 1), mark("[SEP]")],
            "special_tokens": {
                name: {"id": name, "ids": [tokens.index(name)], "tokens": [name]} for name in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {token: number for number, token in enumerate(tokens)},
        },
    }  # fmt: skip


def _added(marks: Iterable[tuple[int, str]]) -> list[dict[str, Any]]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return [{"id": number, "content": content, **plain} for number, content in marks]


def _bert(tokens: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Layers that barely change their input, so that the mean of all places is a projection of the bag of words."""
    width, found = _EMBEDDER_WIDTH, {}

    def norm(name: str) -> None:
        found.update({f"{name}.LayerNorm.weight": np.ones(width), f"{name}.LayerNorm.bias": np.zeros(width)})

    def linear(name: str, rows: int, columns: int) -> None:
        found[f"{name}.weight"] = rng.standard_normal((rows, columns)) * 0.02
        found[f"{name}.bias"] = np.zeros(rows)

    found["embeddings.word_embeddings.weight"] = rng.standard_normal((tokens, width))
    found["embeddings.position_embeddings.weight"] = rng.standard_normal((_EMBEDDER_CONTEXT, width)) * 0.01
    found["embeddings.token_type_embeddings.weight"] = np.zeros((2, width))
    norm("embeddings")
    for number in range(_EMBEDDER_LAYERS):
        layer = f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{part}", width, width)
        linear(f"{layer}.attention.output.dense", width, width)
        norm(f"{layer}.attention.output")
        linear(f"{layer}.intermediate.dense", 2 * width, width)
        linear(f"{layer}.output.dense", width, 2 * width)
        norm(f"{layer}.output")
    linear("pooler.dense", width, width)
    return found


def _add_pooling(folder: Path) -> None:
    """Say, as Sentence Transformers does, that the vector of a text is the mean of its places."""
    parts = (("", "Transformer"), ("1_Pooling", "Pooling"))
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(parts)
    ]
    _dump(folder / "modules.json", modules)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": _EMBEDDER_WIDTH, "pooling_mode_mean_tokens": True}
    _dump(folder / "1_Pooling" / "config.json", {**pooling, "pooling_mode_cls_token": False})


def _dump(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False))
