"""llama.cpp, on the wire ``llama-box``: the embedded build, or ``llama-server`` where a worker has one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

import attrs

from gpustack.domain.artifact import SourceKind
from gpustack.domain.facts import FileFormat, ModelFacts
from gpustack.domain.memory_use import TermBytes
from gpustack.domain.model import Category, Model
from gpustack.domain.unit import MIB
from gpustack.domain.worker import EngineBuild
from gpustack.errors import Unavailable
from gpustack.nursery.process import module_command

from . import parameters
from .adapter import AdapterSelection
from .engine import (
    Engine,
    GangPlan,
    HealthPolicy,
    LaunchContext,
    LaunchSpec,
    PortPool,
    Probe,
    StartOrder,
)
from .memory import SafetensorsMemory
from .memory_log import told_by_llama_cpp
from .rpc_server import NO_BACKTRACE, rpc_server
from .visibility import device_environment

CONTEXT = 8192
"""Tokens of context that one request may use, where the user sets nothing."""
PARALLEL = 4
"""Requests worked on at a time where memory allows it; further ones wait in the engine."""
CHECKPOINTS = 2
"""Copies that a slot keeps of the part of its cache that cannot be rolled back (sliding or recurrent layers).

llama.cpp makes two for each request, at the end of the prompt and shortly before; with them the next turn of a chat
need not process its whole prompt again. By default it keeps 32, whose memory the scheduler has not claimed.
"""
BATCH = 2048
MICRO_BATCH = 512
DRAIN_SECONDS = 10.0
START_SECONDS = 600.0
LOAD_BYTES_PER_SECOND = 50 * MIB
"""The speed of a slow disk: by it the time that a start may take grows with the size of the model."""

CTX_FLAGS = ("-c", "--ctx-size")
PARALLEL_FLAGS = ("-np", "--parallel")
BATCH_FLAGS = ("-b", "--batch-size")
MICRO_BATCH_FLAGS = ("-ub", "--ubatch-size")
LAYER_FLAGS = ("-ngl", "--gpu-layers", "--n-gpu-layers")
SPLIT_FLAGS = ("-ts", "--tensor-split")
UNIFIED_FLAGS = ("-kvu", "--kv-unified")
APART_FLAGS = ("-no-kvu", "--no-kv-unified")
KEY_TYPE_FLAGS = ("-ctk", "--cache-type-k")
VALUE_TYPE_FLAGS = ("-ctv", "--cache-type-v")
FLASH_FLAGS = ("-fa", "--flash-attn")
NO_OFFLOAD_FLAGS = ("-nkvo", "--no-kv-offload")
PROJECTOR_FLAGS = ("-mm", "--mmproj")
NO_PROJECTOR_FLAGS = ("--no-mmproj", "--no-mmproj-auto")
CACHE_RAM_FLAGS = ("-cram", "--cache-ram")
CHECKPOINT_FLAGS = ("-ctxcp", "--ctx-checkpoints", "--swa-checkpoints")
FULL_WINDOW_FLAGS = ("--swa-full",)
HOST_EXPERTS_FLAGS = ("-cmoe", "--cpu-moe")
HOST_EXPERTS_LAYERS_FLAGS = ("-ncmoe", "--n-cpu-moe")
DRAFT_MODEL_FLAGS = ("-md", "--model-draft", "--spec-draft-model")
DRAFT_TYPE_FLAGS = ("--spec-type",)
DRAFT_TOKENS_FLAGS = ("--spec-draft-n-max", "--draft-max", "--draft", "--draft-n")
DRAFT_TOKENS = 3
"""Tokens that llama.cpp guesses ahead unless it is told how many."""
PROMPT_CACHE_FLAG, NO_PROMPT_CACHE_FLAG = "--cache-prompt", "--no-cache-prompt"
SHIFT_FLAGS = ("--context-shift", "--no-context-shift")
KEY_VARIABLE = "LLAMA_API_KEY"
"""The key is not on the command line, which all users of the machine can read."""
CLOSED = {"LLAMA_ARG_CORS_ORIGINS": "localhost"}
"""Web pages of other sites may not read what the engine answers without a key: the model's name, and its health."""
SHIFT_VARIABLE = "LLAMA_ARG_CONTEXT_SHIFT"

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")

_OURS = {
    **dict.fromkeys(
        ("--host", "--port", "--reuse-port", "--api-prefix"), "the worker chooses where it listens"
    ),
    **dict.fromkeys(("-m", "--model"), "the model's source says which file it is"),
    **dict.fromkeys(("-a", "--alias"), "the deployment's name is what it is called"),
    **dict.fromkeys(("--api-key", "--api-key-file"), "clients prove themselves to the gateway"),
    **dict.fromkeys(("--ssl-key-file", "--ssl-cert-file"), "TLS ends at the gateway"),
    **dict.fromkeys(
        ("-mu", "--model-url", "-hf", "-hfr", "--hf-repo", "-hff", "--hf-file", "-dr", "--docker-repo"),
        "files are fetched by the worker; set the model's source",
    ),
    **dict.fromkeys(("--models-dir", "--models-preset"), "each deployment serves one model"),
    **dict.fromkeys(("--rpc",), "the scheduler decides about other workers"),
}
"""Flags a user may not set, and why."""

_OTHER_FORMATS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".onnx", ".ggml", ".mlx", ".engine")
"""Suffixes of files with weights that llama.cpp does not read."""

_BOUNDS = {"LLAMA_ARG_CACHE_RAM": "0", "LLAMA_ARG_CTX_CHECKPOINTS": str(CHECKPOINTS)}
"""Bounds on host memory, as ``_bounds`` sets them by flags for the embedded build.

For a ``llama-server`` they are variables: versions without these settings ignore a variable, but refuse a flag. By
default it keeps up to 8 GiB of old prompts, and 32 checkpoints a slot.
"""

_MOST_TOKENS = 2**31 - 1
_POSITIVE = (CTX_FLAGS, PARALLEL_FLAGS, BATCH_FLAGS, MICRO_BATCH_FLAGS)


@attrs.frozen
class LlamaCppEngine:
    """Text, embeddings and reranking from GGUF files."""

    name: str = "llama.cpp"
    wire_name: str = "llama-box"
    any_device: bool = False
    adapter_selection: AdapterSelection = AdapterSelection.BY_SCALE
    memory: SafetensorsMemory | None = None
    metrics: Mapping[str, str] = attrs.field(
        factory=lambda: {
            "llamacpp:requests_processing": "gpustack:num_requests_running",
            "llamacpp:requests_deferred": "gpustack:num_requests_waiting",
            "llamacpp:prompt_tokens_total": "gpustack:prompt_tokens",
            "llamacpp:tokens_predicted_total": "gpustack:generation_tokens",
            "llamacpp:prompt_tokens_cached_total": "gpustack:prefix_cache_hits",
        },
        repr=False,
    )

    def serves(self, model: Model, facts: ModelFacts | None) -> bool:
        """GGUF files: by the file's header where it was read, else by its name."""
        if facts is not None and facts.format is not FileFormat.UNKNOWN:
            return facts.format is FileFormat.GGUF
        return model.source.names_gguf

    def fetches(self, model: Model) -> bool:
        return True

    def faults(self, model: Model) -> list[str]:
        return [
            *_source_faults(model),
            *_adapter_faults(model),
            *_parameter_faults(model),
            *_layer_faults(model),
        ]

    def context(self, model: Model) -> int | None:
        """Ours, or the user's. Context shift leaves answers unbounded; 0 means the model's own, which is unknown."""
        given = model.backend_parameters
        if parameters.last_of(given, SHIFT_FLAGS) == SHIFT_FLAGS[0] or SHIFT_VARIABLE in model.env:
            return None
        size = parameters.number_of(given, *CTX_FLAGS)
        if parameters.has(given, *CTX_FLAGS) and (size is None or size < 1):
            return None
        return slots(model).context

    def gang(self, model: Model, *, ray: bool) -> GangPlan | None:
        """One RPC server for each device beyond those of the main process (``llama-server`` only)."""
        return GangPlan(
            order=StartOrder.FOLLOWERS_FIRST, follower_ports=1, follower_range=PortPool.RPC, fetches=False
        )

    def memory_told(self, lines: Iterable[str], *, on_devices: bool) -> TermBytes:
        return told_by_llama_cpp(lines)

    def launch(self, context: LaunchContext) -> LaunchSpec:
        if context.member:
            return rpc_server(context)
        size = context.placement.claim.ram + sum(context.placement.claim.vram.values())
        return LaunchSpec(
            argv=(*_program(context.build), *_arguments(context)),
            env={
                **device_environment(context.device_type, context.visible_devices),
                **({} if is_embedded(context.build) else _BOUNDS),
                **CLOSED,
                **(NO_BACKTRACE if context.gang is not None else {}),
                **context.model.env,
                **({} if context.api_key is None else {KEY_VARIABLE: context.api_key}),
            },
            health=HealthPolicy(
                readiness=Probe(path="/health", period=0.25, timeout=2.0),
                liveness=Probe(path="/health", period=5.0, timeout=5.0, failures=6),
                start_deadline=START_SECONDS + size / LOAD_BYTES_PER_SECOND,
                stop_grace=DRAIN_SECONDS + 5.0,
            ),
        )


def is_embedded(build: EngineBuild) -> bool:
    """Whether it is the build inside our own installation, not a ``llama-server`` program."""
    return build.path is None or build.origin.startswith("embedded")


def answers_vectors(model: Model) -> bool:
    """Whether it embeds or ranks: each request is one pass over the prompt, and nothing is generated."""
    return Category.EMBEDDING in model.categories or Category.RERANKER in model.categories


@attrs.frozen(kw_only=True)
class Slots:
    """How an engine's context is divided among the requests that it works on at the same time."""

    count: int
    cells: int
    """Tokens of context of all slots together."""
    unified: bool = False
    """All slots share one cache. When it is full, all requests under way fail."""

    @property
    def context(self) -> int:
        """Tokens that one request may use."""
        return self.cells if self.unified else self.cells // self.count


def slots(model: Model, count: int | None = None) -> Slots:
    """How ``model``'s context is divided; ``count`` is the number of slots where the user does not set it.

    Each slot has its own part, so that no request takes what another needs; requests for which no slot is free wait
    in the engine. ``--ctx-size`` alone is what one request may use. Together with ``--parallel`` both mean what they
    mean to llama.cpp: so many tokens in all, divided among so many slots.
    """
    given, own = model.backend_parameters, defaults(model)
    ctx, fixed = _positive(given, CTX_FLAGS), _positive(given, PARALLEL_FLAGS)
    number = fixed or count or own["parallel"]
    if is_unified(model):
        return Slots(count=number, cells=ctx or own["ctx"], unified=True)
    if ctx is not None and fixed is not None:
        return Slots(count=fixed, cells=ctx)
    return Slots(count=number, cells=(ctx or own["ctx"]) * number)


def slot_counts(model: Model) -> tuple[int, ...]:
    """The numbers of slots to try when placing, the best first; only one where the user has chosen it."""
    if is_unified(model) or _positive(model.backend_parameters, PARALLEL_FLAGS):
        return (slots(model).count,)
    most = defaults(model)["parallel"]
    return tuple(sorted({most, max(most // 2, 1), 1}, reverse=True))


def is_unified(model: Model) -> bool:
    """Whether the user wants one cache for all slots."""
    return parameters.last_of(model.backend_parameters, (*UNIFIED_FLAGS, *APART_FLAGS)) in UNIFIED_FLAGS


def _positive(given: tuple[str, ...], flags: tuple[str, ...]) -> int | None:
    number = parameters.number_of(given, *flags)
    return number if number is not None and number > 0 else None


def defaults(model: Model) -> dict[str, int]:
    """What we set where the user sets nothing: ``ctx`` and ``parallel`` (see ``slots``), ``batch``, ``ubatch``."""
    if answers_vectors(model):
        # The whole prompt must fit into one micro-batch.
        return {"ctx": CONTEXT, "parallel": 1, "batch": BATCH, "ubatch": BATCH}
    return {"ctx": CONTEXT, "parallel": PARALLEL, "batch": BATCH, "ubatch": MICRO_BATCH}


def threads(cpu_count: float) -> int:
    """How many threads generate: memory bandwidth is the limit, so about one for each physical core."""
    logical = max(1, math.floor(cpu_count))
    return logical if logical <= 4 else max(4, logical // 2)


def _program(build: EngineBuild) -> tuple[str, ...]:
    if is_embedded(build):
        drain = ("--drain-seconds", f"{DRAIN_SECONDS:g}")
        return module_command("gpustack.launchers.llama_cpp", *drain)
    assert build.path is not None
    return (build.path,)


def _arguments(context: LaunchContext) -> tuple[str, ...]:
    model, own = context.model, defaults(context.model)
    # A claim without a number of slots is a guess, or was made by an older version: neither counted several slots.
    divided = slots(model, context.placement.claim.slots or 1)
    listening = ("--host", context.host, "--port", str(context.port))
    served = ("--model", context.model_path, "--alias", model.name)
    return (
        *listening,
        *served,
        *_projector(context),
        *_adapters(context),
        *("--ctx-size", str(divided.cells), "--parallel", str(divided.count)),
        *_batching(model, own),
        *_bounds(context.build),
        "--metrics",
        *_verbosity(context.build, model),
        *_duty(model),
        *_remote_devices(context),
        *_devices(context),
        *_threads(context),
        *_given(context),
    )


def _adapters(context: LaunchContext) -> tuple[str, ...]:
    """Its adapters at scale 0: each request raises the one that it names. The embedded build does not know
    ``--lora-init-without-apply``."""
    if not context.adapters:
        return ()
    return ("--lora-scaled", ",".join(f"{adapter.path}:0" for adapter in context.adapters))


_TELLS_BUFFERS = 9200
"""The first build in which level 4 is what level 3 was before: the sizes of buffers, and no word of a request
(https://github.com/ggml-org/llama.cpp/pull/23021). In builds before it, level 4 writes requests down."""
_LEVEL_FLAGS = ("--log-verbosity", "--verbosity", "-lv", "--verbose", "--log-verbose", "-v")
_LEVEL_VARIABLES = ("LLAMA_ARG_LOG_VERBOSITY", "LLAMA_LOG_VERBOSITY")


def _verbosity(build: EngineBuild, model: Model) -> tuple[str, ...]:
    """Has it tell the sizes of its buffers, unless the user says how much it is to tell. It writes some 20 lines of
    each request then, which are too many for requests as short as those for vectors."""
    number = (build.version or "").rpartition(".")[2]
    is_new = number.isascii() and number.isdigit() and len(number) < 9 and int(number) >= _TELLS_BUFFERS
    is_set = parameters.has(model.backend_parameters, *_LEVEL_FLAGS) or any(
        name in model.env for name in _LEVEL_VARIABLES
    )
    return ("--log-verbosity", "4") if is_new and not is_set and not answers_vectors(model) else ()


def _projector(context: LaunchContext) -> tuple[str, ...]:
    """The file that the user names (in the model's folder, unless the path is absolute), else the one that was found.

    None where the user refuses it, or where each request is answered with a vector.
    """
    model = context.model
    chosen = wanted_projector(model)
    if chosen:
        named = parameters.expanded((chosen,), data_dir=context.data_dir)[0]
        if context.mmproj_path and PurePosixPath(context.mmproj_path).name == named:
            return ("--mmproj", context.mmproj_path)
        return ("--mmproj", str(PurePosixPath(context.model_path).parent / named))
    if chosen == "" or context.mmproj_path is None:
        return ()
    return ("--mmproj", context.mmproj_path)


def wanted_projector(model: Model) -> str | None:
    """The projector's file as the user names it; empty where none is wanted, ``None`` where we look for it."""
    given = model.backend_parameters
    last = parameters.last_of(given, (*PROJECTOR_FLAGS, *NO_PROJECTOR_FLAGS))
    if last in PROJECTOR_FLAGS:
        return parameters.value_of(given, *PROJECTOR_FLAGS) or ""
    return "" if last is not None or answers_vectors(model) else None


def _batching(model: Model, own: Mapping[str, int]) -> tuple[str, ...]:
    if answers_vectors(model):
        return ("--batch-size", str(own["batch"]), "--ubatch-size", str(own["ubatch"]))
    return ()


def _bounds(build: EngineBuild) -> tuple[str, ...]:
    """Flags that bound host memory, which the scheduler has not claimed; a ``llama-server`` gets ``_BOUNDS``."""
    if not is_embedded(build):
        return ()
    return ("--cache-ram", "0", "--ctx-checkpoints", str(CHECKPOINTS))


def _duty(model: Model) -> tuple[str, ...]:
    if Category.RERANKER in model.categories:
        return ("--rerank",)
    if Category.EMBEDDING in model.categories:
        return ("--embeddings",)
    return ()


def _devices(context: LaunchContext) -> tuple[str, ...]:
    """The layers and shares that were claimed. Where the need is unknown, llama.cpp fits itself into the devices."""
    placement = context.placement
    remote = () if context.gang is None else context.gang.followers
    layers = placement.claim.offload_layers if placement.gpu_indexes or remote else 0
    if layers is None:
        return ()
    split: tuple[str, ...] = ()
    if len(placement.gpu_indexes) + len(remote) > 1 and placement.claim.tensor_split:
        split = ("--tensor-split", ",".join(str(share) for share in placement.claim.tensor_split))
    return ("--fit", "off", "--gpu-layers", str(layers), *split)


def _remote_devices(context: LaunchContext) -> tuple[str, ...]:
    """The RPC servers, which llama.cpp puts before its own devices; the split follows that order."""
    if context.gang is None:
        return ()
    if is_embedded(context.build) or not context.build.rpc:  # it had it when the instance was placed
        raise Unavailable(
            "The llama.cpp of this worker cannot use devices of other workers any more: it has no RPC. Give it "
            "one that has (gpustack download-tools brings one), or delete the instance, and another place is looked for"
        )
    return ("--rpc", ",".join(f"{one.address}:{one.ports[0]}" for one in context.gang.followers))


def _threads(context: LaunchContext) -> tuple[str, ...]:
    if context.cpu_count is None:
        return ()
    batch = max(1, math.floor(context.cpu_count))
    return ("--threads", str(threads(context.cpu_count)), "--threads-batch", str(batch))


def _given(context: LaunchContext) -> tuple[str, ...]:
    """The user's own parameters, last, so that they win; without slots and projector, which are set before."""
    set_before = (*CTX_FLAGS, *PARALLEL_FLAGS, *PROJECTOR_FLAGS, *NO_PROJECTOR_FLAGS)
    items = parameters.expanded(context.model.backend_parameters, data_dir=context.data_dir)
    found: list[str] = []
    for parameter in parameters.read(items):
        flag = parameters.dashed(parameter.flag)
        if flag not in set_before:
            found += [flag, *([] if parameter.value is None else [parameter.value])]
    return tuple(found)


def format_faults(model: Model) -> list[str]:
    """What is wrong with the file that the source names, as far as its name tells."""
    name = model.source.file_pattern or model.source.local_path or ""
    if PurePosixPath(name.lower()).suffix not in _OTHER_FORMATS:
        return []
    return [
        f"{name} is no GGUF file: name one, or set backend to 'custom' with a command, which runs any format"
    ]


def _source_faults(model: Model) -> list[str]:
    source = model.source
    if faults := format_faults(model):
        return faults
    if source.kind is SourceKind.HUGGING_FACE and not source.huggingface_filename:
        return [
            "huggingface_filename must be provided when using the llama-box backend; "
            f"name the GGUF file of {source.repo}, a pattern such as *Q4_K_M*.gguf will do"
        ]
    if source.kind is SourceKind.MODEL_SCOPE and not source.model_scope_file_path:
        return [
            "model_scope_file_path must be provided when using the llama-box backend; "
            f"name the GGUF file of {source.repo}, a pattern such as *Q4_K_M*.gguf will do"
        ]
    return []


def _adapter_faults(model: Model) -> list[str]:
    """Adapters whose paths llama.cpp would take apart: it is told of all in one flag, FILE:SCALE,FILE:SCALE."""
    return [
        f"lora_adapters: the path of {one.name} has a comma or a colon, which llama.cpp cannot read there: rename it"
        for one in model.lora_adapters
        if {",", ":"}.intersection(one.source.local_path or one.source.file_pattern or "")
    ]


def _parameter_faults(model: Model) -> list[str]:
    given = model.backend_parameters
    faults = []
    for parameter in parameters.read(given):
        if not parameter.flag:
            faults.append(f"Backend parameter {parameter.value!r} follows no flag")
        elif (why := _OURS.get(parameters.dashed(parameter.flag))) is not None:
            faults.append(f"Backend parameter {parameter.flag} cannot be set: {why}")
    for names in _POSITIVE:
        value = parameters.value_of(given, *names)
        if parameters.has(given, *names) and not _is_number(value, least=1, most=_MOST_TOKENS):
            faults.append(f"Backend parameter {names[-1]} needs a positive integer, not {value!r}")
    for names in (KEY_TYPE_FLAGS, VALUE_TYPE_FLAGS):
        value = parameters.value_of(given, *names)
        if parameters.has(given, *names) and value not in CACHE_TYPES:
            faults.append(f"Backend parameter {names[-1]} is {value!r}, not one of {', '.join(CACHE_TYPES)}")
    return faults


def _is_number(text: str | None, *, least: int, most: int) -> bool:
    """Whether it is a number of ASCII digits in that range, as llama.cpp reads numbers."""
    digits = text is not None and text.isascii() and text.isdigit() and len(text) <= len(str(most))
    return digits and least <= int(text or "") <= most


def _layer_faults(model: Model) -> list[str]:
    given, chosen = model.backend_parameters, bool(model.gpu_selector and model.gpu_selector.gpu_ids)
    faults = []
    if chosen and parameters.has(given, *SPLIT_FLAGS):
        faults.append("Backend parameter --tensor-split cannot be used together with a GPU selection")
    if parameters.has(given, *LAYER_FLAGS):
        value = parameters.value_of(given, *LAYER_FLAGS)
        if not _is_number(value, least=0, most=999):
            faults.append("Backend parameter --gpu-layers must be an integer from 0 to 999")
        elif chosen and not _is_number(value, least=1, most=999):
            faults.append("Backend parameter --gpu-layers is 0, which contradicts the GPU selection")
    return faults


ENGINE: Engine = LlamaCppEngine()
