"""MindIE, Huawei's engine for Ascend NPUs: it takes a service's configuration from a file, and a rank table for gangs.

Described from Huawei's documents of MindIE 2.x; it has not been run.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import attrs

from gpustack.domain.facts import ModelFacts
from gpustack.domain.instance import NO_ADDRESS
from gpustack.domain.model import Category, Model
from gpustack.domain.unit import MIB

from . import mindie_parameters
from .engine import Engine, FolderView, GangPlan, HealthPolicy, LaunchContext, LaunchSpec, Probe, StartOrder
from .memory import SafetensorsMemory
from .mindie_parameters import PARAMETERS, Section, values_of
from .program import EngineProgram
from .repository import category_faults, source_faults
from .visibility import device_environment

CONFIGURATION, RANK_TABLE, WEIGHTS = "config.json", "rank_table.json", "weights"
"""Files and the folder that it is promised."""
RESERVED = "RESERVED_MEMORY_GB"
"""Variable of a deployment, which MindIE reads too: GiB of each NPU for what it allocates while it runs."""
DEFAULT_RESERVED = 3.0
_MOST_RESERVED = 64.0
HOME = "/usr/local/Ascend/mindie/latest/mindie-service"
START_SECONDS = 1800.0
LOAD_BYTES_PER_SECOND = 50 * MIB
INSTALL = "Install MindIE with CANN, and have mindieservice_daemon on PATH or in " + HOME + "/bin"

PROGRAM = EngineProgram(
    name="mindieservice_daemon",
    version_arguments=(),
    drives=("npu",),
    on_cpu=False,
    advice=INSTALL,
    version_file="../../version.info",
    places=(f"{HOME}/bin",),
)

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,254}[A-Za-z0-9])?")
_START = """scripts=$1; set --
while [ -n "$scripts" ]; do
  script=${scripts%%:*}
  case $scripts in *:*) scripts=${scripts#*:} ;; *) scripts= ;; esac
  [ -r "$script" ] && . "$script"
done
exec "$MIES_INSTALL_PATH/bin/mindieservice_daemon"
"""
"""Huawei's scripts set what its libraries need. They are read in the order of its guide, and without arguments, which
some of them would take for their own."""
_DTYPES = {"half": "float16", "float": "float32"}


@attrs.frozen
class MindieEngine:
    """Models that generate text, on NPUs, where a deployment names this backend."""

    name: str = "mindie"
    wire_name: str = "ascend-mindie"
    any_device: bool = False
    memory: SafetensorsMemory | None = SafetensorsMemory(
        spans_workers=True,
        context=("--max-seq-len",),
        sequences=("--max-batch-size",),
        batch_tokens=(),
        tensor_parallel=("--tensor-parallel-size",),
        pipeline_parallel=("--pipeline-parallel-size",),
        data_parallel=("--data-parallel-size",),
        cache_type=(),
        cache_bytes=(),
        fraction=("--npu-memory-fraction",),
        quantisation=(),
        overrides=(),
        host_weights=(),
    )
    metrics: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """In ``gpustack/metrics/mapping.py``, with those of other engines that name theirs alike."""

    def serves(self, model: Model, facts: ModelFacts | None) -> bool:
        return False

    def fetches(self, model: Model) -> bool:
        return True

    def faults(self, model: Model) -> list[str]:
        return [
            *source_faults(model, self.wire_name),
            *category_faults(model, self.wire_name, (Category.LLM,)),
            *_name_faults(model),
            *_reserved_faults(model),
            *mindie_parameters.faults_of(model.backend_parameters),
        ]

    def context(self, model: Model) -> int | None:
        if self.faults(model):
            return None
        tokens: int = values_of(model.backend_parameters)["--max-seq-len"]
        return tokens

    def gang(self, model: Model, *, ray: bool) -> GangPlan | None:
        """A service on each worker, of which only the first takes requests; they meet at two of its ports."""
        return GangPlan(order=StartOrder.TOGETHER, main_ports=2, follower_ports=1)

    def launch(self, context: LaunchContext) -> LaunchSpec:
        values = values_of(context.model.backend_parameters)
        follows = context.member > 0
        claims = [
            context.placement.share(member).claim for member in range(1 + len(context.placement.subordinates))
        ]
        size = sum(claim.ram + sum(claim.vram.values()) for claim in claims)
        probe = Probe(path="/v1/models", period=3.0, timeout=5.0)
        home = _home(context)
        ascend = home.parents[2] if len(home.parents) > 2 else home
        files = {CONFIGURATION: json.dumps(configuration(context, values), indent=2)}
        if context.gang is not None:
            files[RANK_TABLE] = json.dumps(rank_table(context), indent=2)
        return LaunchSpec(
            argv=(
                *("/bin/bash", "-c", _START, "mindie"),
                ":".join(_environment_scripts(ascend, home, context.cann_version)),
            ),
            env=_environment(context, values, home),
            health=HealthPolicy(
                readiness=None if follows else probe,
                liveness=None if follows else attrs.evolve(probe, period=10.0, timeout=10.0, failures=6),
                start_deadline=START_SECONDS + size / LOAD_BYTES_PER_SECOND,
                stop_grace=15.0,
            ),
            files=files,
            # Its own config.json must be a file of the user that runs it, not a link.
            views={WEIGHTS: FolderView(source=context.model_path, changes=_changes(context, values))},
            in_session=True,
            install=INSTALL,
        )


def configuration(context: LaunchContext, values: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the service. ``values`` are the parameters by their flags."""
    entries: dict[Section, dict[str, Any]] = {section: {} for section in Section}
    for flag, known in PARAMETERS.items():
        if values[flag] is not None and known.section is not Section.NONE:
            entries[known.section][known.entry] = values[flag]
    tokens = values["--max-seq-len"]
    if context.placement.claim.context is not None:
        tokens = context.placement.claim.context
    most_input = values["--max-input-token-len"]
    most_input = tokens if most_input in (None, -1) else min(most_input, tokens)
    port = context.ports[0] if context.member and context.ports else context.port
    gang = context.gang
    return {
        "Version": "1.0.0",
        Section.SERVER.value: {
            "ipAddress": context.host,
            "managementIpAddress": context.host,
            "port": port,
            "managementPort": port,
            "metricsPort": port,
            "allowAllZeroIpListening": False,
            "httpsEnabled": False,
            "fullTextEnabled": False,
            "inferMode": "standard",
            "interCommTLSEnabled": False,
            "openAiSupport": "vllm",
            "distDPServerEnabled": False,
            **entries[Section.SERVER],
        },
        "BackendConfig": {
            "backendName": "mindieservice_llm_engine",
            "modelInstanceNumber": 1,
            # The variable that hides the others numbers them anew.
            "npuDeviceIds": [list(range(len(context.gpu_indexes)))],
            "tokenizerProcessNumber": 8,
            "multiNodesInferEnabled": gang is not None,
            **({} if gang is None else {"multiNodesInferPort": gang.main.ports[1]}),
            "interNodeTLSEnabled": False,
            Section.DEPLOY.value: {
                **entries[Section.DEPLOY],
                "maxSeqLen": tokens,
                "maxInputTokenLen": most_input,
                **_speculation(values),
                Section.MODEL.value: [
                    {
                        "modelInstanceType": "Standard",
                        "modelName": context.model.name,
                        "modelWeightPath": f"{context.session_dir}/{WEIGHTS}",
                        "worldSize": len(context.gpu_indexes),
                        "npuMemSize": -1,
                        "backendType": "atb",
                        **entries[Section.MODEL],
                        **_plugins(values),
                    }
                ],
            },
            Section.SCHEDULE.value: {
                "templateType": "Mix" if values["--enable-split"] else "Standard",
                "templateName": "Standard_LLM",
                "maxPrefillTokens": max(8192, most_input),
                "maxIterTimes": tokens,
                **entries[Section.SCHEDULE],
                **_schedule(values),
            },
        },
    }


def rank_table(context: LaunchContext) -> dict[str, Any]:
    """Who is in the gang: every NPU with the address of its own network, the main member's first.

    The devices have the numbers of their machine, so in a gang none is hidden.
    """
    assert context.gang is not None
    servers, rank = [], 0
    for member in context.gang.members:
        share = context.placement.share(member.index)
        devices = []
        for place, index in enumerate(share.gpu_indexes):
            address = share.gpu_addresses[place] if place < len(share.gpu_addresses) else None
            devices.append(
                {"device_id": str(index), "device_ip": address or NO_ADDRESS, "rank_id": str(rank)}
            )
            rank += 1
        servers.append({"server_id": member.address, "container_ip": member.address, "device": devices})
    return {
        "version": "1.0",
        "server_count": str(len(servers)),
        "server_list": servers,
        "status": "completed",
    }


def reserved_bytes(model: Model) -> int:
    """Bytes that MindIE keeps of each NPU beside the model and its cache."""
    given = _reserved(model)
    return math.ceil((DEFAULT_RESERVED if given is None else given) * (1 << 30))


def _plugins(values: Mapping[str, Any]) -> dict[str, str]:
    """What is switched on beyond plain decoding: one list of names with the settings of all."""
    names: list[str] = []
    settings: dict[str, Any] = {}
    for switch, name, flags in (
        ("--enable-split", "splitfuse", ()),
        ("--enable-memory-decoding", "memory_decoding", ("--memory-decoding-length",)),
        (
            "--enable-lookahead",
            "la",
            ("--lookahead-level", "--lookahead-window", "--lookahead-guess-set-size"),
        ),
        ("--enable-multi-token-prediction", "mtp", ("--multi-token-prediction-tokens",)),
        ("--enable-prefix-caching", "prefix_cache", ()),
    ):
        if values[switch]:
            names.append(name)
            settings |= {PARAMETERS[flag].entry: values[flag] for flag in flags}
    return {"plugin_params": json.dumps({"plugin_type": ",".join(names), **settings})} if names else {}


def _speculation(values: Mapping[str, Any]) -> dict[str, int]:
    """Tokens guessed at a time, as Huawei's guide computes them."""
    if values["--enable-memory-decoding"]:
        return {"speculationGamma": values["--memory-decoding-length"]}
    if values["--enable-lookahead"]:
        level, window, guesses = (
            values[flag] for flag in ("--lookahead-level", "--lookahead-window", "--lookahead-guess-set-size")
        )
        return {"speculationGamma": (level - 1) * (window + guesses)}
    return {}


def _schedule(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if values["--enable-prefix-caching"]:
        found["enablePrefixCache"] = True
    if values["--enable-split"]:
        found |= {"enableSplit": True, "splitType": False, "splitStartType": False}
        for flag in ("--policy-type", "--split-chunk-tokens", "--split-start-batch-size"):
            found[PARAMETERS[flag].entry] = values[flag]
    if values["--enable-buffer-response"]:
        found["bufferResponseEnabled"] = True
        for flag in ("--prefill-expected-time-ms", "--decode-expected-time-ms"):
            if values[flag] is not None:
                found[PARAMETERS[flag].entry] = values[flag]
    return found


def _changes(context: LaunchContext, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What is changed in the model's own files. Chips of the 310P line have no bfloat16."""
    config: dict[str, Any] = {}
    dtype = str(values["--dtype"]).lower()
    if dtype == "auto" and (context.cann_chip or "").lower().startswith("310p"):
        dtype = "float16"
    if dtype != "auto":
        config["torch_dtype"] = _DTYPES.get(dtype, dtype)
    for flag, key in (("--rope-scaling", "rope_scaling"), ("--rope-theta", "rope_theta")):
        if values[flag] is not None:
            config[key] = values[flag]
    generation = values["--override-generation-config"]
    return {"config.json": config, **({"generation_config.json": generation} if generation else {})}


def _environment(context: LaunchContext, values: Mapping[str, Any], home: PurePosixPath) -> dict[str, str]:
    eager = {"ATB_OPERATION_EXECUTE_ASYNC": "0", "TASK_QUEUE_ENABLE": "0"}
    level = str(values["--log-level"]).upper()
    found = {
        **({} if context.gang is not None else device_environment("npu", context.visible_devices)),
        "MIES_INSTALL_PATH": str(home),
        "MIES_CONFIG_JSON_PATH": f"{context.session_dir}/{CONFIGURATION}",
        "MIES_SERVICE_MONITOR_MODE": "1",  # without it there is no /metrics
        "MINDIE_LOG_TO_STDOUT": "1",
        "MINDIE_LOG_TO_FILE": "0",
        "MINDIE_LOG_LEVEL": "WARN" if level == "WARNING" else level,
        "NPU_MEMORY_FRACTION": _fraction(context, values),
        **(eager if values["--enforce-eager"] else {}),
    }
    if context.gang is not None:
        main = context.gang.main
        found |= {
            "RANK_TABLE_FILE": f"{context.session_dir}/{RANK_TABLE}",
            "MASTER_IP": main.address,
            "MASTER_PORT": str(main.ports[2]),
            "HOST_IP": context.address or context.gang.members[context.member].address,
            "HCCL_DETERMINISTIC": "true",
            "ATB_LLM_HCCL_ENABLE": "1",
            **({} if context.interface is None else {"HCCL_SOCKET_IFNAME": f"={context.interface}"}),
        }
    return {**found, **context.model.env}


def _fraction(context: LaunchContext, values: Mapping[str, Any]) -> str:
    """The share of each NPU that it may take: as given, and no more than is claimed for it."""
    given = float(values["--npu-memory-fraction"])
    claim = context.placement.share(context.member).claim
    shares = [
        size / total
        for index, size in claim.vram.items()
        if size > 0 and (total := context.device_memory.get(index))
    ]
    return f"{min([given, *shares]):.4g}"


def _home(context: LaunchContext) -> PurePosixPath:
    """The folder of the service: its program lies in ``bin`` there."""
    path = context.build.path
    return PurePosixPath(HOME) if path is None else PurePosixPath(path).parent.parent


def _environment_scripts(ascend: PurePosixPath, home: PurePosixPath, cann: str | None) -> tuple[str, ...]:
    """Of the toolkit (the version that is told, where there are several), then of the libraries on top of it."""
    toolkit = ascend / "ascend-toolkit"
    told = (
        ()
        if cann is None
        else (str(toolkit / cann / "set_env.sh"), str(toolkit / cann / "bin" / "setenv.bash"))
    )
    return (
        str(toolkit / "set_env.sh"),
        *told,
        str(ascend / "nnal" / "atb" / "set_env.sh"),
        str(ascend / "atb-models" / "set_env.sh"),
        str(home / "set_env.sh"),
    )


def _name_faults(model: Model) -> list[str]:
    if _NAME.fullmatch(model.name):
        return []
    return [
        "Backend ascend-mindie serves a deployment only under a name of letters, digits, dots, dashes and underscores, "
        f"with a letter or digit at both ends, not {model.name!r}"
    ]


def _reserved(model: Model) -> float | None:
    try:
        return float(model.env[RESERVED]) if model.env.get(RESERVED, "").strip() else None
    except ValueError:
        return math.nan


def _reserved_faults(model: Model) -> list[str]:
    given = _reserved(model)
    if given is None or 0 <= given < _MOST_RESERVED:
        return []
    return [
        f"env: {RESERVED} must be a number of GiB from 0 to below {_MOST_RESERVED:g}, not {model.env[RESERVED]!r}"
    ]


ENGINE: Engine = MindieEngine()
