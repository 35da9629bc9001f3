"""A real Whisper for CTranslate2 of a few megabytes, its weights written by hand so that it always hears one sentence.

The decoder's head is a table of successors: whatever the sound, the sentence follows the start of a transcript, and
another one, if it is given, the start of a translation. Encoder and attention are there but say nothing. Needs the
package ``ctranslate2``, whose writer of model files it uses; no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.models.vocabulary import BYTES, spell

HEARD = "This is a tiny transcript."
WIDTH = 128
_PLACES = 16
"""Of the width: these tell the place of a token, and of a frame of sound, by which words are timed."""
_FRAMES_A_TOKEN = 10
"""The attention of a token looks so many frames (50 a second) after that of the token before."""
_MULTILINGUAL = ""
"""The empty token is what CTranslate2 knows a multilingual Whisper by; only those have one."""
_STRENGTH = 0.2
SPECIAL = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>",
            "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")  # fmt: skip
TIMES = tuple(f"<|{number * 0.02:.2f}|>" for number in range(1501))


def make_tiny_whisper(folder: Path, heard: str = HEARD, *, translated: str | None = None) -> Path:
    """Write the model to ``folder`` and return it. With ``translated`` it is multilingual, and hears German.

    Raises ValueError when a word comes twice: the next one is looked up by the present one.
    """
    import ctranslate2

    sentences = [words_of(text) for text in (heard, translated) if text]
    words = [word for sentence in sentences for word in sentence]
    if len(set(words)) != len(words):
        raise ValueError("no word may come twice")
    plain = [BYTES[byte] for byte in range(256)]
    merged, merges = _merged(words, set(plain))
    plain += merged
    if translated is not None:
        plain.append(_MULTILINGUAL)
    tokens = [*plain, *SPECIAL, *TIMES]
    ids = {token: number for number, token in enumerate(tokens)}
    follows = _successors(ids, [[spell(word) for word in sentence] for sentence in sentences])
    spec = ctranslate2.specs.WhisperSpec(1, 2, 1, 2)
    _fill(spec, len(tokens), follows)
    spec.register_vocabulary(tokens)
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [], []
    spec.config.lang_ids = [ids["<|en|>"], ids["<|de|>"]]
    spec.config.alignment_heads = [(0, 0), (0, 1)]
    spec.validate()
    spec.optimize(quantization="float16")
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(ids, merges, SPECIAL), ensure_ascii=False))
    return folder


def words_of(text: str) -> list[str]:
    return re.findall(r" ?[^\W_]+| ?[^\s\w]", " " + text)


def _merged(words: list[str], known: set[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The pieces of which the words are put together, and the merges that do so."""
    pieces: list[str] = []
    merges: list[tuple[str, str]] = []
    for word in words:
        letters = [BYTES[byte] for byte in word.encode()]
        whole = letters[0]
        for letter in letters[1:]:
            if whole + letter not in known:
                known.add(whole + letter)
                pieces.append(whole + letter)
                merges.append((whole, letter))
            whole += letter
    return pieces, merges


def _successors(ids: dict[str, int], sentences: list[list[str]]) -> dict[int, dict[int, float]]:
    """Token → what follows it, with a weight. The weaker one is taken where the stronger is forbidden."""
    first, end, begin = ids[sentences[0][0]], ids["<|endoftext|>"], ids["<|0.00|>"]
    transcript, said = ids["<|startoftranscript|>"], ids["<|2.00|>"]
    follows = {
        transcript: {ids["<|de|>"]: 1.0, begin: 0.9},
        ids["<|de|>"]: {ids["<|transcribe|>"]: 1.0},
        ids["<|en|>"]: {ids["<|transcribe|>"]: 1.0},
        ids["<|transcribe|>"]: {begin: 1.0},
        ids["<|notimestamps|>"]: {first: 1.0},
        begin: {first: 1.0},
        said: {end: 1.0},
    }
    for sentence in sentences:
        for one, following in zip(sentence, [*sentence[1:], None], strict=True):
            follows[ids[one]] = {said: 1.0, end: 0.9} if following is None else {ids[following]: 1.0}
    if len(sentences) > 1:
        # A translation begins at another time, by which the decoder knows which of the two it is telling.
        other = ids["<|0.02|>"]
        follows[ids["<|translate|>"]] = {other: 1.0}
        follows[other] = {ids[sentences[1][0]]: 1.0}
    return follows


def _fill(spec: Any, vocabulary: int, follows: dict[int, dict[int, float]]) -> None:
    rng = np.random.default_rng(0)
    embedding = rng.standard_normal((vocabulary, WIDTH)).astype(np.float32)
    embedding[:, -_PLACES:] = 0
    seen = (embedding - embedding.mean(axis=1, keepdims=True)) / embedding.std(axis=1, keepdims=True)
    head = np.zeros((vocabulary, WIDTH), dtype=np.float32)
    for token, successors in follows.items():
        for successor, weight in successors.items():
            head[successor] += seen[token] * weight * _STRENGTH
    encoder, decoder = spec.encoder, spec.decoder
    encoder.conv1.weight = (rng.standard_normal((WIDTH, 80, 3)) * 0.02).astype(np.float32)
    encoder.conv2.weight = (rng.standard_normal((WIDTH, WIDTH, 3)) * 0.02).astype(np.float32)
    for convolution in (encoder.conv1, encoder.conv2):
        convolution.bias = np.zeros(WIDTH, dtype=np.float32)
    encoder.position_encodings.encodings = _places(np.arange(1500))
    decoder.position_encodings.encodings = _places(np.arange(448) * _FRAMES_A_TOKEN)
    decoder.embeddings.weight = embedding
    decoder.projection.weight = head
    for part in (encoder, decoder):
        _fill_norm(part.layer_norm)
        _fill_layer(part.layer[0])
    # The values of the attention are zero: where it looks times the words, and changes nothing else.
    query, keys_and_values, _ = decoder.layer[0].attention.linear
    for first in (0, WIDTH // 2):
        for row in range(_PLACES):
            query.weight[first + row, WIDTH - _PLACES + row] = 4.0
            keys_and_values.weight[first + row, WIDTH - _PLACES + row] = 4.0


def _places(frames: Any) -> Any:
    """Rows that are the more alike, the nearer their frames are."""
    periods = np.geomspace(40, 3000, _PLACES // 2)
    angles = 2 * np.pi * frames[:, None] / periods
    rows = np.zeros((len(frames), WIDTH), dtype=np.float32)
    rows[:, -_PLACES::2], rows[:, -_PLACES + 1 :: 2] = np.cos(angles), np.sin(angles)
    return rows


def _fill_layer(layer: Any) -> None:
    _fill_attention(layer.self_attention, (3 * WIDTH, WIDTH))
    if hasattr(layer, "attention"):
        _fill_attention(layer.attention, (WIDTH, 2 * WIDTH, WIDTH))
    _fill_norm(layer.ffn.layer_norm)
    _fill_linear(layer.ffn.linear_0, 2 * WIDTH, WIDTH)
    _fill_linear(layer.ffn.linear_1, WIDTH, 2 * WIDTH)


def _fill_attention(attention: Any, outputs: tuple[int, ...]) -> None:
    _fill_norm(attention.layer_norm)
    for linear, rows in zip(attention.linear, outputs, strict=True):
        _fill_linear(linear, rows, WIDTH)


def _fill_linear(linear: Any, rows: int, columns: int) -> None:
    linear.weight = np.zeros((rows, columns), dtype=np.float32)
    linear.bias = np.zeros(rows, dtype=np.float32)


def _fill_norm(norm: Any) -> None:
    norm.gamma = np.ones(WIDTH, dtype=np.float32)
    norm.beta = np.zeros(WIDTH, dtype=np.float32)


def tokenizer(
    ids: Mapping[str, int], merges: Sequence[tuple[str, str]], marks: Collection[str]
) -> dict[str, Any]:
    """A byte-level BPE in the form of the ``tokenizers`` library; ``marks`` and times are no text."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    added = [
        {
            "id": ids[token],
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": token in marks,
        }
        for token in (*marks, *TIMES)
    ]
    plain = {token: number for token, number in ids.items() if token not in marks and token not in TIMES}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": plain,
            "merges": [list(pair) for pair in merges],
        },
    }
