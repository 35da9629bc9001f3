"""The backend parameters of MindIE: which there are, and which entry of its service's configuration each becomes.

The entries and their ranges are those of Huawei's "Service parameter configuration" for MindIE 2.x.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

import attrs

from . import parameters


class Section(StrEnum):
    """Where an entry stands in the configuration; ``NONE`` is none of its places: it is read by the engine file."""

    SERVER = "ServerConfig"
    DEPLOY = "ModelDeployConfig"
    MODEL = "ModelConfig"
    SCHEDULE = "ScheduleConfig"
    NONE = ""


class Kind(StrEnum):
    SWITCH = "switch"
    WHOLE = "whole"
    NUMBER = "number"
    JSON = "json"
    WORD = "word"


@attrs.frozen
class MindieParameter:
    """One parameter. Numbers lie from ``least`` to ``most``; words are among ``words``."""

    section: Section
    entry: str
    kind: Kind
    default: Any = None
    """``None``: the entry is left out."""
    least: float = 0
    most: float = (1 << 31) - 1
    words: tuple[str, ...] = ()


def _whole(section: Section, entry: str, default: int | None, least: int, most: int) -> MindieParameter:
    return MindieParameter(section, entry, Kind.WHOLE, default, least, most)


def _switch(section: Section, entry: str = "", default: bool | None = None) -> MindieParameter:
    return MindieParameter(section, entry, Kind.SWITCH, default)


_PARALLEL = (-1, 1024)

PARAMETERS: Mapping[str, MindieParameter] = {
    "--max-link-num": _whole(Section.SERVER, "maxLinkNum", 1000, 1, 4096),
    "--token-timeout": _whole(Section.SERVER, "tokenTimeout", 600, 1, 3600),
    "--e2e-timeout": _whole(Section.SERVER, "e2eTimeout", 600, 1, 65535),
    "--max-seq-len": _whole(Section.DEPLOY, "maxSeqLen", 8192, 1, 4194304),
    "--max-input-token-len": _whole(Section.DEPLOY, "maxInputTokenLen", None, -1, 4194304),
    "--truncation": _switch(Section.DEPLOY, "truncation", False),
    "--cpu-mem-size": _whole(Section.MODEL, "cpuMemSize", 0, 0, 1 << 20),
    "--trust-remote-code": _switch(Section.MODEL, "trustRemoteCode", False),
    "--tensor-parallel-size": _whole(Section.MODEL, "tp", None, *_PARALLEL),
    "--data-parallel-size": _whole(Section.MODEL, "dp", None, *_PARALLEL),
    "--sequence-parallel-size": _whole(Section.MODEL, "sp", None, *_PARALLEL),
    "--pipeline-parallel-size": _whole(Section.MODEL, "pp", None, *_PARALLEL),
    "--moe-tensor-parallel-size": _whole(Section.MODEL, "moe_tp", None, *_PARALLEL),
    "--moe-expert-parallel-size": _whole(Section.MODEL, "moe_ep", None, *_PARALLEL),
    "--cache-block-size": _whole(Section.SCHEDULE, "cacheBlockSize", 128, 1, 128),
    "--max-prefill-batch-size": _whole(Section.SCHEDULE, "maxPrefillBatchSize", 50, 1, 5000),
    "--prefill-time-ms-per-req": _whole(Section.SCHEDULE, "prefillTimeMsPerReq", 150, 0, 1000),
    "--prefill-policy-type": _whole(Section.SCHEDULE, "prefillPolicyType", 0, 0, 3),
    "--max-batch-size": _whole(Section.SCHEDULE, "maxBatchSize", 200, 1, 5000),
    "--decode-time-ms-per-req": _whole(Section.SCHEDULE, "decodeTimeMsPerReq", 50, 0, 1000),
    "--decode-policy-type": _whole(Section.SCHEDULE, "decodePolicyType", 0, 0, 3),
    "--max-preempt-count": _whole(Section.SCHEDULE, "maxPreemptCount", 0, 0, 5000),
    "--support-select-batch": _switch(Section.SCHEDULE, "supportSelectBatch", False),
    "--max-queue-delay-microseconds": _whole(
        Section.SCHEDULE, "maxQueueDelayMicroseconds", 5000, 500, 1000000
    ),
    "--npu-memory-fraction": MindieParameter(Section.NONE, "", Kind.NUMBER, 0.9, 0.01, 1.0),
    "--override-generation-config": MindieParameter(Section.NONE, "", Kind.JSON),
    "--rope-scaling": MindieParameter(Section.NONE, "", Kind.JSON),
    "--rope-theta": MindieParameter(Section.NONE, "", Kind.NUMBER, None, 0, 1e12),
    "--dtype": MindieParameter(
        Section.NONE, "", Kind.WORD, "auto", words=("auto", "half", "float16", "bfloat16", "float", "float32")
    ),
    "--log-level": MindieParameter(
        Section.NONE, "", Kind.WORD, "Info", words=("debug", "verbose", "info", "warn", "warning", "error")
    ),
    "--enforce-eager": _switch(Section.NONE),
    "--metrics": _switch(Section.NONE),
    "--enable-prefix-caching": _switch(Section.NONE),
    "--enable-split": _switch(Section.NONE),
    "--policy-type": _whole(Section.NONE, "policyType", 0, 0, 7),
    "--split-chunk-tokens": _whole(Section.NONE, "splitChunkTokens", 512, 1, 8192),
    "--split-start-batch-size": _whole(Section.NONE, "splitStartBatchSize", 16, 0, 5000),
    "--enable-memory-decoding": _switch(Section.NONE),
    "--memory-decoding-length": _whole(Section.NONE, "decoding_length", 16, 1, 16),
    "--enable-lookahead": _switch(Section.NONE),
    "--lookahead-level": _whole(Section.NONE, "level", 4, 3, 16),
    "--lookahead-window": _whole(Section.NONE, "window", 5, 1, 16),
    "--lookahead-guess-set-size": _whole(Section.NONE, "guess_set_size", 5, 1, 16),
    "--enable-multi-token-prediction": _switch(Section.NONE),
    "--multi-token-prediction-tokens": _whole(Section.NONE, "num_speculative_tokens", 1, 1, 2),
    "--enable-buffer-response": _switch(Section.NONE),
    "--prefill-expected-time-ms": _whole(Section.NONE, "prefillExpectedTime", None, 1, 3600000),
    "--decode-expected-time-ms": _whole(Section.NONE, "decodeExpectedTime", None, 1, 3600000),
}

_APART = (
    ("--enable-memory-decoding", "--enable-lookahead"),
    ("--enable-memory-decoding", "--enable-multi-token-prediction"),
    ("--enable-lookahead", "--enable-multi-token-prediction"),
    ("--enable-split", "--enable-memory-decoding"),
    ("--enable-split", "--enable-lookahead"),
    ("--enable-split", "--enable-multi-token-prediction"),
)
"""What MindIE does not do together."""
_TRUE, _FALSE = ("true", "1"), ("false", "0")


def values_of(items: Iterable[str]) -> dict[str, Any]:
    """The value of every parameter by its flag: as given, else its default. Call it for parameters without faults."""
    found = {flag: one.default for flag, one in PARAMETERS.items()}
    for given in parameters.read(items):
        if given.flag in PARAMETERS:
            found[given.flag] = _value(PARAMETERS[given.flag], given.value)
    return found


def faults_of(items: Iterable[str]) -> list[str]:
    """Everything that is wrong with the parameters that MindIE knows, a sentence each, and those that it does not."""
    given = parameters.read(items)
    faults = []
    for one in given:
        known = PARAMETERS.get(one.flag)
        if known is None:
            what = one.flag or one.value
            faults.append(f"backend_parameters: MindIE has no {what}; it has {', '.join(sorted(PARAMETERS))}")
        elif _value(known, one.value) is None:
            faults.append(f"Backend parameter {one.flag} must be {_wanted(known)}, not {one.value!r}")
    if faults:
        return faults
    values = values_of(items)
    return [
        f"backend_parameters: MindIE does not do {first} and {second} together"
        for first, second in _APART
        if values[first] and values[second]
    ] + _unfitting(values)


def _unfitting(values: Mapping[str, Any]) -> list[str]:
    faults = []
    if values["--max-preempt-count"] and not values["--cpu-mem-size"]:
        faults.append("Backend parameter --max-preempt-count above 0 needs a --cpu-mem-size above 0")
    if values["--max-prefill-batch-size"] > values["--max-batch-size"]:
        faults.append("Backend parameter --max-prefill-batch-size must not be above --max-batch-size")
    return faults


def _value(known: MindieParameter, text: str | None) -> Any:
    """The value in a text; ``None`` if it is none."""
    if known.kind is Kind.SWITCH:
        lowered = "true" if text is None else text.lower()
        return True if lowered in _TRUE else False if lowered in _FALSE else None
    if text is None:
        return None
    if known.kind is Kind.WORD:
        return text if text.lower() in known.words else None
    if known.kind is Kind.JSON:
        return _object(text)
    return _number(known, text)


def _number(known: MindieParameter, text: str) -> float | int | None:
    try:
        number: float = int(text) if known.kind is Kind.WHOLE else float(text)
    except ValueError:
        return None
    return number if known.least <= number <= known.most else None


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _wanted(known: MindieParameter) -> str:
    match known.kind:
        case Kind.SWITCH:
            return "true or false"
        case Kind.JSON:
            return "an object in JSON"
        case Kind.WORD:
            return f"one of {', '.join(known.words)}"
        case Kind.WHOLE:
            return f"a whole number from {known.least:g} to {known.most:g}"
        case Kind.NUMBER:
            return f"a number from {known.least:g} to {known.most:g}"
