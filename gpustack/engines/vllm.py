"""vLLM: text, embeddings, reranking and Whisper from safetensors, on one worker, on several, or on a Ray cluster."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

import attrs

from gpustack.domain.artifact import SourceKind
from gpustack.domain.facts import FileFormat, ModelFacts
from gpustack.domain.memory_use import TermBytes
from gpustack.domain.model import Category, Model
from gpustack.domain.unit import GIB, MIB
from gpustack.domain.worker import EngineBuild

from . import parameters
from .adapter import Adapter, AdapterCall, AdapterSelection
from .engine import Engine, GangPlan, HealthPolicy, LaunchContext, LaunchSpec, Probe, StartOrder, WarmUp
from .flag_list import FlagList
from .memory import SafetensorsMemory
from .memory_log import told_by_vllm
from .program import EngineProgram, PythonPackage
from .visibility import device_environment
from .vllm_flags import NEWEST
from .vllm_parameters import CONTEXT_FLAGS, DATA_FLAGS, PARALLEL_FLAGS, context_of, faults_of

CONTEXT = 8192
"""Tokens that one request may use, where the user sets nothing and the model takes as many."""
DRAIN_SECONDS = 10.0
START_SECONDS = 900.0
"""Importing, compiling and warming up, on a busy machine."""
LOAD_BYTES_PER_SECOND = 50 * MIB
"""The speed of a slow disk: by it the time that a start may take grows with the size of the model."""
FOLLOWER_GRACE = 5.0
"""A follower has nothing to save, and by itself takes up to 26 s to end."""
KEY_VARIABLE = "VLLM_API_KEY"
"""The key is not on the command line, which all users of the machine can read."""
INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME")
"""Without them each library takes the address that the machine's own name stands for, often 127.0.1.1."""
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values of ``--max-lora-rank``."""

PROGRAM = EngineProgram(
    name="vllm",
    package=PythonPackage(
        name="vllm",
        extras=("audio",),
        default_version=NEWEST.version,
        drives=("cuda",),
        disk=16 * GIB,
        pins=(("0.10.0", ("transformers==4.53.3",)),),
    ),
    on_cpu=False,
    advice="install a build of vLLM for them by hand, and have it on PATH (docs/engines.md)",
)

_QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
_OFFLINE = {"HF_HUB_OFFLINE": "1"}
"""The files are here, and nothing may start to load in the middle of a request."""
_LOOPBACK = "127.0.0.1"
_CACHE_FLAGS = ("--kv-cache-memory-bytes",)
_FRACTION_FLAGS = ("--gpu-memory-utilization", "--device-memory-utilization")
_RUNNER_FLAGS = ("--runner", "--convert")
_LORA_FLAGS = ("--enable-lora", "--no-enable-lora")
_RANK_FLAGS = ("--max-lora-rank",)
_HOT_VARIABLE = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"
_RANK_REFUSED = re.compile(
    r"(Call to \w+ method failed: )?(Worker failed with error ')?"
    r"LoRA rank (?P<rank>\d{1,9}) is greater than max_lora_rank \d+\.?"
    r"(', please check the stack trace above for the root cause)?",
    re.ASCII,
)
"""Of an engine in one process, and of one whose workers have processes of their own."""
_FRONT_FLAGS = ("--api-server-count", "-asc")
_LEAST_FRACTION = 0.01
_NOT_SERVED = (Category.IMAGE, Category.TEXT_TO_SPEECH)
_RAY_LAUNCHER = "vllm_ray.py"


@attrs.frozen
class VllmEngine:
    """Models in the layout of Hugging Face."""

    name: str = "vllm"
    wire_name: str = "vllm"
    any_device: bool = False
    adapter_selection: AdapterSelection = AdapterSelection.BY_NAME
    adapter_list: str = "/v1/models"
    memory: SafetensorsMemory | None = SafetensorsMemory(on_cpu=True, spans_workers=True)
    metrics: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """They differ by version: ``gpustack/metrics/mapping.py`` has them."""

    def serves(self, model: Model, facts: ModelFacts | None) -> bool:
        """Safetensors, but for what speaks or paints."""
        if facts is None or facts.format is not FileFormat.SAFETENSORS:
            return False
        categories = {*model.categories, facts.category}
        return not categories.intersection(_NOT_SERVED)

    def fetches(self, model: Model) -> bool:
        return True

    def memory_told(self, lines: Iterable[str], *, on_devices: bool) -> TermBytes:
        return told_by_vllm(lines, on_devices=on_devices)

    def faults(self, model: Model) -> list[str]:
        return [*_source_faults(model), *faults_of(model)]

    @property
    def newest_flags(self) -> FlagList:
        return NEWEST

    def faults_for(self, model: Model, known: FlagList) -> list[str]:
        return faults_of(model, known)

    def help_arguments(self) -> tuple[str, ...]:
        return ("serve", "--help=all")

    def context(self, model: Model) -> int | None:
        given = model.backend_parameters
        return context_of(given) if parameters.has(given, *CONTEXT_FLAGS) else CONTEXT

    def gang(self, model: Model, *, ray: bool) -> GangPlan | None:
        """Natively one process a worker, which find each other at a port of the main one; or all through Ray."""
        if ray:
            # vLLM gives up soon when a machine on which it was placed is not in the cluster yet.
            return GangPlan(order=StartOrder.FOLLOWERS_FIRST, delegated=True)
        return GangPlan(order=StartOrder.TOGETHER, main_ports=1)

    def loads_adapters(self, model: Model) -> bool:
        allowed = model.env.get(_HOT_VARIABLE, "1").strip().lower() in ("1", "true")
        return allowed and _has_room(model) and _has_one_front(model.backend_parameters)

    def loading(self, adapter: Adapter) -> AdapterCall:
        body = {"lora_name": adapter.name, "lora_path": adapter.path}
        return AdapterCall(path="/v1/load_lora_adapter", body=body)

    def unloading(self, name: str) -> AdapterCall:
        return AdapterCall(path="/v1/unload_lora_adapter", body={"lora_name": name})

    def loaded(self, answer: bytes) -> Mapping[str, str]:
        """Of the list of models those that have a parent."""
        try:
            models = json.loads(answer)["data"]
            return {str(one["id"]): str(one["root"]) for one in models if one.get("parent")}
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError("not a list of models") from error

    def outgrown(self, model: Model, refusal: str) -> bool:
        """Where nothing but the rank is too large: at a start the room follows from the adapters."""
        said = _RANK_REFUSED.fullmatch(refusal)
        fits = said is not None and int(said["rank"]) <= LORA_RANKS[-1]
        return fits and not parameters.has(model.backend_parameters, *_RANK_FLAGS)

    def launch(self, context: LaunchContext) -> LaunchSpec:
        placement = context.placement
        claims = (placement.claim, *(share.claim for share in placement.subordinates))
        size = sum(claim.ram + sum(claim.vram.values()) for claim in claims)
        deadline = START_SECONDS + size / LOAD_BYTES_PER_SECOND
        probe = Probe(path="/health", period=1.0, timeout=5.0)
        follows = context.member > 0
        return LaunchSpec(
            argv=(*_program(context), *_arguments(context, deadline)),
            env=_environment(context),
            health=HealthPolicy(
                # A follower has no port of its own, and no line in its log says that it is ready.
                readiness=None if follows else probe,
                liveness=None if follows else attrs.evolve(probe, period=5.0, timeout=10.0, failures=6),
                start_deadline=deadline,
                stop_grace=FOLLOWER_GRACE if follows else DRAIN_SECONDS + 5.0,
                warm_up=None if follows else _warm_up(context.model),
            ),
        )


def runs_on_cpu(build: EngineBuild) -> bool:
    """Whether it is a build for processors alone."""
    return not build.drives


def _warm_up(model: Model) -> WarmUp | None:
    """Something to do for what a model does. The first request may have vLLM compile, even where it is told not to."""
    asked: dict[str, object]
    if Category.EMBEDDING in model.categories:
        path, asked = "/v1/embeddings", {"input": "Hello"}
    elif {Category.RERANKER, Category.SPEECH_TO_TEXT}.intersection(model.categories):
        return None
    else:
        path, asked = "/v1/completions", {"prompt": "Hello", "max_tokens": 1}
    return WarmUp(path=path, body=json.dumps({"model": model.name, **asked}))


def _program(context: LaunchContext) -> tuple[str, ...]:
    """The command, up to the model. On Ray it is started by our launcher, with the same Python."""
    program = context.build.path or "vllm"
    if context.ray_environment is None:
        return (program, "serve", context.model_path)
    launcher = PurePosixPath(__file__).parent.parent / "launchers" / _RAY_LAUNCHER
    bundles = json.dumps(_bundles(context), separators=(",", ":"))
    return (context.build.python or "python3", str(launcher), bundles, "serve", context.model_path)


def _bundles(context: LaunchContext) -> list[dict[str, object]]:
    """For each rank the address of its machine and the device it has there, as the launcher takes them."""
    assert context.gang is not None
    return [
        {"ip": member.address, "device": index}
        for member in context.gang.members
        for index in (member.gpu_indexes or (0,))
    ]


def _arguments(context: LaunchContext, deadline: float) -> tuple[str, ...]:
    model = context.model
    listening = ("--host", context.host, "--port", str(context.port))
    return (
        *(() if context.member else listening),
        *("--served-model-name", model.name),
        *_context(context),
        *_memory(context),
        *_parallel(context),
        *_gang(context, deadline),
        *_duty(model),
        *_adapters(context),
        *_optional(context, "--shutdown-timeout", f"{DRAIN_SECONDS:g}"),
        *parameters.tokens(parameters.expanded(model.backend_parameters, data_dir=context.data_dir)),
    )


def _context(context: LaunchContext) -> tuple[str, ...]:
    given, tokens = context.model.backend_parameters, context.placement.claim.context
    if tokens is None or parameters.has(given, *CONTEXT_FLAGS):
        return ()
    return ("--max-model-len", str(tokens))


def _memory(context: LaunchContext) -> tuple[str, ...]:
    """What it may take of each device. By default vLLM takes 92 % of every one, whatever it needs.

    Told the bytes of its cache it takes no share, but still ends at the start unless that share is free.
    """
    given, claim = context.model.backend_parameters, context.placement.claim
    found: list[str] = []
    own = context.placement.share(context.member).claim
    if claim.kv_cache is not None and not parameters.has(given, *_CACHE_FLAGS, *_FRACTION_FLAGS):
        found += _optional(context, _CACHE_FLAGS[0], str(claim.kv_cache))
    shares = [
        claimed / total
        for index, claimed in own.vram.items()
        if claimed > 0 and (total := context.device_memory.get(index))
    ]
    if shares and not parameters.has(given, *_FRACTION_FLAGS):
        fraction = max(math.floor(min(shares) * 10_000) / 10_000, _LEAST_FRACTION)
        found += [_FRACTION_FLAGS[0], f"{min(fraction, 1.0):g}"]
    return tuple(found)


def _parallel(context: LaunchContext) -> tuple[str, ...]:
    """As placement divided it; else the devices of each worker hold one stage of the model, and workers are stages."""
    if parameters.has(context.model.backend_parameters, *PARALLEL_FLAGS):
        return ()
    placement = context.placement
    shares = [placement.share(member).gpu_indexes for member in range(1 + len(placement.subordinates))]
    counts = [len(indexes) or 1 for indexes in shares]
    if (group := placement.claim.tensor_parallel) and sum(counts) % group == 0:
        layout = (("--tensor-parallel-size", group), ("--pipeline-parallel-size", sum(counts) // group))
        return tuple(word for flag, size in layout if size > 1 for word in (flag, str(size)))
    if len(set(counts)) > 1:  # on Ray alone
        return ("--pipeline-parallel-size", str(sum(counts)))
    tensor = ("--tensor-parallel-size", str(counts[0])) if counts[0] > 1 else ()
    return (*tensor, *(("--pipeline-parallel-size", str(len(counts))) if len(counts) > 1 else ()))


def _gang(context: LaunchContext, deadline: float) -> tuple[str, ...]:
    gang = context.gang
    if gang is None:
        return ()
    if context.ray_environment is not None:
        return ("--distributed-executor-backend", "ray")
    main = gang.main
    return (
        *("--nnodes", str(len(gang.members)), "--node-rank", str(context.member)),
        *("--master-addr", main.address, "--master-port", str(main.ports[-1])),
        # Without it a member waits for ever for one that does not come.
        *_optional(context, "--distributed-timeout-seconds", str(math.ceil(deadline))),
        *(("--headless",) if context.member else ()),
    )


def _duty(model: Model) -> tuple[str, ...]:
    """A model that only embeds or ranks may have the architecture of one that generates."""
    if parameters.has(model.backend_parameters, *_RUNNER_FLAGS):
        return ()
    if Category.RERANKER in model.categories or Category.EMBEDDING in model.categories:
        return ("--runner", "pooling")
    return ()


def _has_room(model: Model) -> bool:
    switch = parameters.last_of(model.backend_parameters, _LORA_FLAGS)
    return switch == _LORA_FLAGS[0] or (switch is None and bool(model.lora_adapters))


def _has_one_front(given: Sequence[str]) -> bool:
    """Whether one process takes the requests. Of several each knows only the adapters that it was asked to load, and
    vLLM does not start where that is allowed; without being told it has one for each data-parallel rank."""
    named = _FRONT_FLAGS if parameters.has(given, *_FRONT_FLAGS) else DATA_FLAGS
    return (parameters.number_of(given, *named) or 1) == 1


def _adapters(context: LaunchContext) -> tuple[str, ...]:
    if not (context.adapters or context.model.lora_adapters):
        return ()
    given = context.model.backend_parameters
    rank = max((adapter.rank or 0 for adapter in context.adapters), default=0)
    room = next((size for size in LORA_RANKS if size >= rank), LORA_RANKS[-1])
    modules = [
        json.dumps({"name": one.name, "path": one.path, "base_model_name": context.model.name})
        for one in context.adapters
    ]
    return (
        *(() if parameters.has(given, *_LORA_FLAGS) else ("--enable-lora",)),
        *(() if room <= 16 or parameters.has(given, *_RANK_FLAGS) else ("--max-lora-rank", str(room))),
        *(("--lora-modules", *modules) if modules else ()),
    )


def _optional(context: LaunchContext, flag: str, value: str) -> tuple[str, ...]:
    """A flag that older versions lack: left out where the build is known not to have it, or where the user sets it."""
    known, given = context.known_flags, context.model.backend_parameters
    if parameters.has(given, flag) or (known is not None and not known.knows(flag)):
        return ()
    return (flag, value)


_AS_GFX1100 = frozenset({"gfx1101", "gfx1102"})
"""Chips of AMD's desktop cards for which ROCm wheels bring no kernels; those of gfx1100 run on them."""


def _environment(context: LaunchContext) -> dict[str, str]:
    return {
        **device_environment(context.device_type, context.visible_devices),
        **({"HSA_OVERRIDE_GFX_VERSION": "11.0.0"} if context.gfx in _AS_GFX1100 else {}),
        **_QUIET,
        **_OFFLINE,
        **_network(context),
        **_threads(context),
        **_hot_adapters(context.model),
        **context.model.env,
        **(context.ray_environment or {}),
        **({} if context.api_key is None else {KEY_VARIABLE: context.api_key}),
    }


def _network(context: LaunchContext) -> dict[str, str]:
    """Where its own sockets are: on the loopback, or on the interface by which its gang reaches it."""
    if context.gang is None:
        return {"VLLM_HOST_IP": _LOOPBACK, "GLOO_SOCKET_IFNAME": "lo"}
    found = {} if context.address is None else {"VLLM_HOST_IP": context.address}
    # On Ray the processes of all workers would get the interface of this one; the nodes have their own set.
    if context.interface is not None and context.ray_environment is None:
        found |= dict.fromkeys(INTERFACE_VARIABLES, context.interface)
    return found


def _threads(context: LaunchContext) -> dict[str, str]:
    """On processors vLLM pins a thread to each core, which engines side by side would fight for."""
    if not runs_on_cpu(context.build):
        return {}
    count = 1 if context.cpu_count is None else max(1, math.floor(context.cpu_count))
    return {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(count)}


def _hot_adapters(model: Model) -> dict[str, str]:
    return {_HOT_VARIABLE: "1"} if _has_room(model) and _has_one_front(model.backend_parameters) else {}


def _source_faults(model: Model) -> list[str]:
    source = model.source
    faults = []
    if source.kind is SourceKind.OLLAMA or source.names_gguf:
        faults.append(
            f"Backend vllm runs safetensors, and {source.readable} is GGUF: set backend to llama-box, or none"
        )
    if model.cpu_offloading:
        faults.append(
            "CPU offloading is not available with backend vllm: --cpu-offload-gb does something alike"
        )
    if wrong := _listed([one for one in _NOT_SERVED if one in model.categories]):
        faults.append(f"Backend vllm does not serve models of category {wrong}")
    return faults


def _listed(categories: Sequence[Category]) -> str:
    return " or ".join(category.value for category in categories)


ENGINE: Engine = VllmEngine()
