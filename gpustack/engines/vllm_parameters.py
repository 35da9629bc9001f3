"""Which parameters of vLLM a deployment may set: names that its version knows, and none that the worker decides."""

from __future__ import annotations

from collections.abc import Sequence

from gpustack.domain.model import Model

from . import parameters
from .flag_list import FlagList, plain, public_version, unknown_flags
from .vllm_flags import NEWEST

CONTEXT_FLAGS = ("--max-model-len",)
TENSOR_FLAGS = ("--tensor-parallel-size", "-tp")
PIPELINE_FLAGS = ("--pipeline-parallel-size", "-pp")
DATA_FLAGS = ("--data-parallel-size", "-dp")
_PREFILL_FLAGS = ("--prefill-context-parallel-size", "-pcp")
PARALLEL_FLAGS = (*TENSOR_FLAGS, *PIPELINE_FLAGS, *DATA_FLAGS, *_PREFILL_FLAGS)

_LISTENS = "the worker chooses where it listens"
_PLACES = "the scheduler decides about workers and devices"
_FETCHES = "files are fetched by the worker; set the model's source"
_OURS = {
    **dict.fromkeys(("--host", "--port", "--uds", "--grpc", "--grpc-port"), _LISTENS),
    **dict.fromkeys(("--data-parallel-supervisor-port", "--data-parallel-multi-port-external-lb"), _LISTENS),
    "-dpm": _LISTENS,
    "--model": "the model's source says which files it is",
    "--served-model-name": "the deployment's name is what it is called",
    "--api-key": "clients prove themselves to the gateway",
    "--config": "a file of options could set what the worker decides; give the options one by one",
    **dict.fromkeys(
        (
            "--ssl-keyfile",
            "--ssl-certfile",
            "--ssl-ca-certs",
            "--ssl-cert-reqs",
            "--ssl-ciphers",
            "--enable-ssl-refresh",
        ),
        "TLS ends at the gateway",
    ),
    **dict.fromkeys(("--nnodes", "-n", "--node-rank", "-r", "--master-addr", "--master-port"), _PLACES),
    **dict.fromkeys(("--headless", "--distributed-executor-backend", "--device-ids"), _PLACES),
    **dict.fromkeys(
        (
            "--data-parallel-address",
            "-dpa",
            "--data-parallel-backend",
            "-dpb",
            "--data-parallel-external-lb",
            "-dpe",
            "--data-parallel-hybrid-lb",
            "-dph",
            "--data-parallel-rank",
            "-dpn",
            "--data-parallel-rpc-port",
            "-dpp",
            "--data-parallel-size-local",
            "-dpl",
            "--data-parallel-start-rank",
            "-dpr",
        ),
        _PLACES,
    ),
    "--hf-token": "all users of the machine could read it there: put HF_TOKEN into env",
    **dict.fromkeys(("--download-dir", "--revision"), _FETCHES),
}
"""Flags that a user may not set, and why."""

_GONE = {
    "--task": "set the model's categories, or --runner and --convert",
    "--device": "the build of vLLM decides",
    "--swap-space": "vLLM has no swap space any more",
    "--enable-reasoning": "--reasoning-parser alone will do",
    "--disable-log-requests": "requests are not logged unless --enable-log-requests is set",
    "--rope-scaling": "--hf-overrides '{\"rope_parameters\": {…}}' says the same",
    "--rope-theta": '--hf-overrides \'{"rope_parameters": {"rope_theta": …}}\' says the same',
    "--guided-decoding-backend": '--structured-outputs-config \'{"backend": "…"}\' says the same',
    "--max-seq-len-to-capture": "--max-cudagraph-capture-size bounds what is captured",
}
"""Flags of former versions, and what to do instead."""

_SUFFIXES = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}


def faults_of(model: Model, known: FlagList | None = None) -> list[str]:
    """What is wrong with a deployment's parameters, a sentence each.

    ``known`` are the flags of the build that is to run it. Without, they are checked against the newest list we have,
    unless the deployment pins another version.
    """
    given = model.backend_parameters
    tokens = parameters.tokens(given)
    if known is None and public_version(model.backend_version) in (None, NEWEST.version):
        known = NEWEST
    faults = []
    if tokens and not parameters.is_flag(tokens[0]):
        faults.append(f"Backend parameter {tokens[0]!r} follows no flag")
    free = []
    for flag in (token for token in tokens if parameters.is_flag(token)):
        if (why := _why_ours(flag)) is not None:
            faults.append(f"Backend parameter {flag} cannot be set: {why}")
        elif known and (instead := _GONE.get(plain(flag))) is not None and not known.knows(flag):
            faults.append(f"Backend parameter {flag} is of an older vLLM: {instead}")
        elif not flag.startswith("-O"):  # -O3 and the like, which the help shows in other words
            free.append(flag)
    if known is not None:
        pins = "" if known is not NEWEST else " (for another version set backend_version)"
        faults += unknown_flags(free, known, program="vLLM", advice=pins)
    return [*faults, *_number_faults(model)]


def _why_ours(flag: str) -> str | None:
    """Why a flag may not be set; ``argparse`` takes the beginning of its name for the name."""
    name = plain(flag)
    if name in _OURS:
        return _OURS[name]
    if not name.startswith("--") or NEWEST.knows(name):
        return None
    return next((why for ours, why in _OURS.items() if len(name) > len("--") and ours.startswith(name)), None)


def _number_faults(model: Model) -> list[str]:
    given = model.backend_parameters
    faults = []
    for names in (TENSOR_FLAGS, PIPELINE_FLAGS, DATA_FLAGS):
        if parameters.has(given, *names) and (parameters.number_of(given, *names) or 0) < 1:
            value = parameters.value_of(given, *names)
            faults.append(f"Backend parameter {names[0]} needs a positive integer, not {value!r}")
    chosen = model.gpu_selector.gpu_ids if model.gpu_selector else ()
    ranks = ranks_of(given)
    if not faults and chosen and ranks is not None and ranks != len(chosen):
        faults.append(
            f"The parallel sizes among the backend parameters ask for {ranks} GPUs, but {len(chosen)} are selected"
        )
    return faults


def ranks_of(given: Sequence[str]) -> int | None:
    """The devices that a deployment's parameters ask for; ``None`` where they leave it to us."""
    if not parameters.has(given, *PARALLEL_FLAGS):
        return None
    ranks = 1
    for names in (TENSOR_FLAGS, PIPELINE_FLAGS, DATA_FLAGS, _PREFILL_FLAGS):
        ranks *= max(parameters.number_of(given, *names) or 1, 1)
    return ranks


def context_of(given: Sequence[str]) -> int | None:
    """Tokens that the parameters set as the longest request (``8k`` is 8000, ``8K`` 8192); ``None`` if none or any."""
    text = (parameters.value_of(given, *CONTEXT_FLAGS) or "").strip()
    factor = _SUFFIXES.get(text[-1:], 1)
    digits = text[:-1] if factor > 1 else text
    try:
        tokens = int(float(digits) * factor)
    except (ValueError, OverflowError):
        return None
    return tokens if tokens > 0 else None
