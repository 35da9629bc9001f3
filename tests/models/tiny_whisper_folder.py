"""The tiny Whisper in the layout of Hugging Face: whatever the sound, it hears one sentence.

The feed-forward layer of the decoder is a table of successors: one neuron fires at each token and adds the direction of
the next. Encoder and attention are there but say nothing. Asked for times, it says the sentence as one token of another
chain that ends with a time, so that it knows by the last token alone what it is telling.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tests.models.tiny_folder import write_safetensors
from tests.models.tiny_whisper import HEARD, SPECIAL, TIMES, WIDTH, tokenizer, words_of
from tests.models.vocabulary import BYTES, spell

SAID_AT = 2.0
"""Seconds: when it says that the sentence ended."""
_FIRST = ("<|endoftext|>", "<|startoftranscript|>")
_LANGUAGES = (  # noqa: SIM905
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt "
    "la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc "
    "ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue"
).split()
_POSITIONS, _TARGETS = 1500, 448
_FEED_FORWARD = 64
_FIRES = 20.0
"""What a neuron gets from its own token; from others it gets some 2."""
_SILENT = -12.0


def make_tiny_whisper_folder(folder: Path, heard: str = HEARD) -> Path:
    """Write the model to ``folder`` and return it. Raises ValueError when a word comes twice."""
    words = [spell(word) for word in words_of(heard)]
    if len(set(words)) != len(words):
        raise ValueError("no word may come twice")
    whole = spell(" " + heard)
    plain = list(dict.fromkeys([*(BYTES[byte] for byte in range(256)), *words, whole]))
    marks = [
        *_FIRST,
        *(f"<|{code}|>" for code in _LANGUAGES),
        *(m for m in SPECIAL if m not in (*_FIRST, "<|en|>", "<|de|>")),
    ]
    ids = {token: number for number, token in enumerate([*plain, *marks, *TIMES])}
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "model.safetensors", _weights(len(ids), _successors(ids, words, whole)))
    _dump(folder / "config.json", _config(ids))
    _dump(folder / "generation_config.json", _generation(ids))
    _dump(folder / "preprocessor_config.json", _FEATURES)
    _dump(folder / "tokenizer.json", tokenizer(ids, [], marks))
    end = {name: _FIRST[0] for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
    settings = {
        "tokenizer_class": "WhisperTokenizer",
        "processor_class": "WhisperProcessor",
        "model_max_length": 1024,
    }
    _dump(folder / "tokenizer_config.json", {**settings, **end})
    return folder


def _successors(ids: dict[str, int], words: list[str], whole: str) -> dict[int, int]:
    chain = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>", *words, "<|endoftext|>"]
    timed = ["<|0.00|>", whole, f"<|{SAID_AT:.2f}|>", "<|endoftext|>"]
    return {ids[one]: ids[following] for row in (chain, timed) for one, following in pairwise(row)}


def _weights(tokens: int, follows: dict[int, int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    embedding = rng.standard_normal((tokens, WIDTH))
    embedding *= 2 / np.linalg.norm(embedding, axis=1, keepdims=True)
    found = {
        "model.encoder.conv1.weight": rng.standard_normal((WIDTH, 80, 3)) * 0.02,
        "model.encoder.conv1.bias": np.zeros(WIDTH),
        "model.encoder.conv2.weight": rng.standard_normal((WIDTH, WIDTH, 3)) * 0.02,
        "model.encoder.conv2.bias": np.zeros(WIDTH),
        "model.encoder.embed_positions.weight": np.zeros((_POSITIONS, WIDTH)),
        "model.decoder.embed_tokens.weight": embedding,
        "model.decoder.embed_positions.weight": np.zeros((_TARGETS, WIDTH)),
    }
    for part, attentions in (("encoder", ("self_attn",)), ("decoder", ("self_attn", "encoder_attn"))):
        layer = f"model.{part}.layers.0"
        for name in attentions:
            found |= _attention(f"{layer}.{name}")
        for norm in (f"model.{part}.layer_norm", f"{layer}.final_layer_norm"):
            found |= _norm(norm)
        found |= _linear(f"{layer}.fc1", _FEED_FORWARD, WIDTH) | _linear(f"{layer}.fc2", WIDTH, _FEED_FORWARD)
    fires, adds = np.zeros((_FEED_FORWARD, WIDTH)), np.zeros((WIDTH, _FEED_FORWARD))
    for neuron, (token, following) in enumerate(follows.items()):
        seen = embedding[token] - embedding[token].mean()
        fires[neuron] = seen / seen.std() * _FIRES / WIDTH
        adds[:, neuron] = embedding[following]
    layer = "model.decoder.layers.0"
    found[f"{layer}.fc1.weight"], found[f"{layer}.fc2.weight"] = fires, adds
    found[f"{layer}.fc1.bias"] = np.full(_FEED_FORWARD, _SILENT)
    return found


def _attention(name: str) -> dict[str, np.ndarray]:
    found = _norm(f"{name}_layer_norm")
    for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
        found |= _linear(f"{name}.{part}", WIDTH, WIDTH)
    del found[f"{name}.k_proj.bias"]  # Whisper has none
    return found


def _linear(name: str, rows: int, columns: int) -> dict[str, np.ndarray]:
    return {f"{name}.weight": np.zeros((rows, columns)), f"{name}.bias": np.zeros(rows)}


def _norm(name: str) -> dict[str, np.ndarray]:
    return {f"{name}.weight": np.ones(WIDTH), f"{name}.bias": np.zeros(WIDTH)}


_FEATURES = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "processor_class": "WhisperProcessor",
    "feature_size": 80,
    "sampling_rate": 16_000,
    "hop_length": 160,
    "n_fft": 400,
    "chunk_length": 30,
    "n_samples": 480_000,
    "nb_max_frames": 3000,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": False,
}


def _config(ids: dict[str, int]) -> dict[str, Any]:
    sizes: dict[str, Any] = {}
    for part in ("encoder", "decoder"):
        sizes |= {f"{part}_layers": 1, f"{part}_attention_heads": 2, f"{part}_ffn_dim": _FEED_FORWARD}
    end = ids["<|endoftext|>"]
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "vocab_size": len(ids),
        "num_mel_bins": 80,
        "d_model": WIDTH,
        "num_hidden_layers": 1,
        **sizes,
        "max_source_positions": _POSITIONS,
        "max_target_positions": _TARGETS,
        "activation_function": "gelu",
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
        "decoder_start_token_id": ids["<|startoftranscript|>"],
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end),
        **_NOTHING_SUPPRESSED,
        "torch_dtype": "bfloat16",
    }


_NOTHING_SUPPRESSED: dict[str, list[int]] = {"suppress_tokens": [], "begin_suppress_tokens": []}


def _generation(ids: dict[str, int]) -> dict[str, Any]:
    end = ids["<|endoftext|>"]
    return {
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end),
        "decoder_start_token_id": ids["<|startoftranscript|>"],
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"],
        "is_multilingual": True,
        "lang_to_id": {f"<|{code}|>": ids[f"<|{code}|>"] for code in _LANGUAGES},
        "task_to_id": {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")},
        "max_initial_timestamp_index": 50,
        "max_length": _TARGETS,
        "return_timestamps": False,
        **_NOTHING_SUPPRESSED,
    }


def _dump(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False))
