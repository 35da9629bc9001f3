"""The command line of every engine, as recorded in golden/; write a missing one by hand and read it twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import attrs
import pytest

import gpustack
from gpustack.domain.artifact import LoraAdapter, ModelSource, SourceKind
from gpustack.domain.instance import Claim, Placement, Subordinate
from gpustack.domain.unit import GIB
from gpustack.domain.worker import EngineBuild
from gpustack.engines.adapter import Adapter
from gpustack.engines.backend import settled
from gpustack.engines.engine import Gang, GangMember, LaunchContext, LaunchSpec, Probe
from gpustack.engines.registry import engine_for

from .worlds import SERVER, VLLM, VLLM_CPU, context, gang, model

PACKAGE = str(Path(gpustack.__file__).parent)
GOLDEN = Path(__file__).parent / "golden"
FULL = Claim(ram=GIB, vram={1: 6 * GIB}, offload_layers=33, total_layers=33, slots=4)
SPLIT = Claim(
    ram=GIB,
    vram={0: 4 * GIB, 2: 4 * GIB},
    offload_layers=81,
    total_layers=81,
    tensor_split=(41, 40),
    slots=2,
)

SGLANG = EngineBuild(engine="sglang", version="0.5.23", path="/opt/sglang/bin/sglang", drives=("cuda",))
TEI = EngineBuild(engine="text-embeddings-inference", version="1.8.0", path="/usr/bin/text-embeddings-router")
TRANSFORMERS = EngineBuild(engine="transformers-serve", version="5.23.0", path="/opt/t/bin/transformers")
MINDIE = EngineBuild(
    engine="mindie",
    version="2.1.RC1",
    path="/usr/local/Ascend/mindie/latest/mindie-service/bin/mindieservice_daemon",
    drives=("npu",),
)
REPOSITORY = ModelSource(kind=SourceKind.HUGGING_FACE, huggingface_repo_id="org/model")
FOLDER = {"model_path": "/cache/org/model", "session_dir": "/data/run/instance-1.files"}
TWO_WORKERS = Placement(
    worker_id=1,
    gpu_indexes=(0, 1),
    claim=Claim(vram={0: 40 * GIB, 1: 40 * GIB}, context=16384),
    subordinates=(
        Subordinate(worker_id=2, gpu_indexes=(2, 3), claim=Claim(vram={2: 40 * GIB, 3: 40 * GIB})),
    ),
)
TWO_NPU_WORKERS = Placement(
    worker_id=1,
    gpu_indexes=(0, 1),
    gpu_addresses=("192.168.1.10", "192.168.1.11"),
    claim=Claim(vram={0: 40 * GIB, 1: 40 * GIB}, context=16384),
    subordinates=(
        Subordinate(
            worker_id=2,
            gpu_indexes=(2, 3),
            gpu_addresses=("192.168.2.12", None),
            claim=Claim(vram={2: 40 * GIB, 3: 40 * GIB}),
        ),
    ),
)
NPU_PAIR = Gang(
    attempt=3,
    members=(
        GangMember(index=0, address="10.0.0.1", ports=(40000, 40001, 40002), gpu_indexes=(0, 1)),
        GangMember(index=1, address="10.0.0.2", ports=(40007,), gpu_indexes=(2, 3)),
    ),
)
PAIR = Gang(
    attempt=3,
    members=(
        GangMember(index=0, address="10.0.0.1", ports=(40000, 40001), gpu_indexes=(0, 1)),
        GangMember(index=1, address="10.0.0.2", ports=(40007,), gpu_indexes=(2, 3)),
    ),
)
POOL = Claim(ram=4 * GIB, vram={0: 20 * GIB, 1: 20 * GIB}, context=8192, kv_cache=4 * GIB)
MEMORY = {0: 80 * GIB, 1: 80 * GIB}

AUDIO = EngineBuild(engine="vox-box", version="1.2.1", origin="faster-whisper 1.2.1")
SPEECH = model(
    name="listener",
    source=ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/models/whisper"),
    backend="vox-box",
)

CASES: dict[str, LaunchContext] = {
    "llama_cpp_embedded_on_cpu": context(model(), cpu_count=8),
    "llama_cpp_server_on_one_gpu": context(model(), build=SERVER, gpus=(1,), claim=FULL, device_type="cuda"),
    "llama_cpp_server_on_two_gpus": context(
        model(), build=SERVER, gpus=(0, 2), claim=SPLIT, device_type="rocm"
    ),
    "llama_cpp_server_of_unknown_need": context(model(), build=SERVER, gpus=(0,), device_type="cuda"),
    "llama_cpp_embedding": context(model(categories=("embedding",)), cpu_count=2),
    "llama_cpp_reranker": context(model(categories=("reranker",))),
    "llama_cpp_with_projector_and_parameters": context(
        model(
            backend_parameters=("--ctx-size=4096", "--mmproj mmproj.gguf", "--lora", "{data_dir}/a.gguf"),
            env={"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "3"},
        ),
        mmproj_path="/models/mmproj.gguf",
    ),
    "vllm_on_one_gpu": context(
        model(source=REPOSITORY, backend="vllm"),
        build=VLLM,
        gpus=(0,),
        claim=Claim(ram=4 * GIB, vram={0: 20 * GIB}, context=8192, kv_cache=4 * GIB),
        device_type="cuda",
        device_memory=MEMORY,
        api_key="key",
    ),
    "vllm_on_two_gpus_with_parameters": context(
        model(
            source=FOLDER,
            backend="vllm",
            backend_parameters=(
                "--max-model-len=32k",
                "--enable-auto-tool-choice",
                "--tool-call-parser hermes",
                "--reasoning-parser=qwen3",
                '--compilation-config {"mode":2,"backend":"eager"}',
                "--enable-sleep-mode",
            ),
            env={"VLLM_SERVER_DEV_MODE": "1"},
        ),
        build=VLLM,
        gpus=(0, 1),
        claim=POOL,
        device_type="cuda",
        device_memory=MEMORY,
    ),
    "vllm_on_cpu": context(
        model(source=REPOSITORY, backend="vllm"),
        build=VLLM_CPU,
        claim=Claim(ram=2 * GIB, context=4096, kv_cache=GIB),
        cpu_count=8,
    ),
    "vllm_embedding": context(
        model(source=REPOSITORY, backend="vllm", categories=("embedding",)), build=VLLM_CPU
    ),
    "vllm_reranker": context(
        model(source=REPOSITORY, backend="vllm", categories=("reranker",)), build=VLLM_CPU
    ),
    "vllm_with_adapters": context(
        model(
            source=REPOSITORY,
            backend="vllm",
            lora_adapters=(
                LoraAdapter(name="pirate", source=REPOSITORY),
                LoraAdapter(name="poet", source=REPOSITORY),
            ),
        ),
        build=VLLM_CPU,
        adapters=(
            Adapter(name="m:pirate", path="/loras/pirate", rank=32),
            Adapter(name="m:poet", path="/loras/poet"),
        ),
    ),
    "vllm_main_of_two_workers": context(
        model(source=REPOSITORY, backend="vllm"),
        build=VLLM,
        gpus=(0, 1),
        claim=POOL,
        others=((0, 1),),
        device_type="cuda",
        device_memory=MEMORY,
        gang=gang((0, 1), (0, 1)),
        ports=(40000, 40001),
        address="10.0.0.1",
        interface="eth0",
        api_key="key",
    ),
    "vllm_follower_of_two_workers": context(
        model(source=REPOSITORY, backend="vllm"),
        build=VLLM,
        gpus=(0, 1),
        claim=POOL,
        others=((0, 1),),
        device_type="cuda",
        device_memory=MEMORY,
        gang=gang((0, 1), (0, 1)),
        member=1,
        address="10.0.0.2",
        interface="enp3s0",
    ),
    "vllm_on_ray": context(
        model(source=REPOSITORY, backend="vllm"),
        build=VLLM,
        gpus=(0, 1),
        claim=POOL,
        others=((0, 1),),
        device_type="cuda",
        device_memory=MEMORY,
        gang=gang((0, 1), (0, 1), main_ports=(40000,)),
        address="10.0.0.1",
        interface="eth0",
        api_key="key",
        ray_environment={"RAY_ADDRESS": "10.0.0.1:40096", "RAY_AUTH_MODE": "token"},
    ),
    "diffusers_on_one_gpu": context(
        model(
            source=REPOSITORY, backend="diffusers", backend_parameters=("--max-side=1024", "--dtype bfloat16")
        ),
        build=EngineBuild(engine="diffusers", version="0.42.1", origin="diffusers 0.42.1", drives=("cuda",)),
        gpus=(0,),
        claim=Claim(ram=2 * GIB, vram={0: 8 * GIB}),
        device_type="cuda",
        model_path="/cache/org/model",
        cpu_count=4,
    ),
    "vox_box_on_cpu": context(SPEECH, build=AUDIO, model_path="/models/whisper", cpu_count=6),
    "vox_box_on_the_second_gpu": context(
        attrs.evolve(
            SPEECH, backend_parameters=("--compute-type=int8_float16", "--no-vad"), env={"LC_ALL": "C"}
        ),
        build=AUDIO,
        gpus=(1,),
        claim=Claim(ram=0, vram={1: 2 * GIB}),
        device_type="cuda",
        model_path="/models/whisper",
        api_key="sesame",
    ),
    "vox_box_without_files": context(
        model(
            name="speaker",
            source=ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/espeak-ng"),
            backend="vox-box",
        ),
        build=AUDIO,
        model_path="",
        cpu_count=2,
    ),
    "custom": context(
        model(
            name="it's mine",
            command="serve --name {served_name} --bind {host}:{port} '{model_path}' --json '{\"a\": 1}'",
            health_path="/up",
            env={"PORT": "{port}"},
            backend_parameters=("--extra=1",),
        )
    ),
    "sglang": context(
        model(
            source=REPOSITORY,
            backend="sglang",
            backend_parameters=("--reasoning-parser=qwen3",),
            env={"A": "1"},
        ),
        build=SGLANG,
        gpus=(0, 1),
        claim=Claim(vram={0: 40 * GIB, 1: 40 * GIB}, context=8192),
        device_type="cuda",
        api_key="k",
        **FOLDER,
    ),
    "sglang_embedding": context(
        model(source=REPOSITORY, backend="sglang", categories=("embedding",), backend_parameters=("--tp 1",)),
        build=SGLANG,
        gpus=(3,),
        device_type="cuda",
        **FOLDER,
    ),
    "sglang_head_of_two_workers": context(
        model(source=REPOSITORY, backend="sglang"),
        build=SGLANG,
        placement=TWO_WORKERS,
        gang=PAIR,
        ports=(40000, 40001),
        address="10.0.0.1",
        interface="eth0",
        device_type="cuda",
        **FOLDER,
    ),
    "sglang_follower": context(
        model(source=REPOSITORY, backend="sglang"),
        build=SGLANG,
        placement=TWO_WORKERS,
        gang=PAIR,
        member=1,
        ports=(40007,),
        address="10.0.0.2",
        interface="bond1",
        device_type="cuda",
        **FOLDER,
    ),
    "mindie": context(
        model(source=REPOSITORY, backend="MindIE", env={"RESERVED_MEMORY_GB": "5"}),
        build=MINDIE,
        gpus=(4, 5),
        claim=Claim(vram={4: 48 * GIB, 5: 48 * GIB}, context=8192),
        device_type="npu",
        device_memory={4: 64 * GIB, 5: 64 * GIB},
        cann_chip="910b",
        **FOLDER,
    ),
    "mindie_with_parameters": context(
        model(
            source=REPOSITORY,
            backend="ascend-mindie",
            backend_parameters=(
                "--max-seq-len=32768",
                "--max-input-token-len 30000",
                "--npu-memory-fraction=0.8",
                "--enable-prefix-caching",
                "--enable-multi-token-prediction",
                "--trust-remote-code",
                "--override-generation-config",
                '{"temperature": 0.5}',
                "--rope-theta=1000000",
                "--enforce-eager",
                "--tensor-parallel-size=4",
                "--log-level=debug",
                "--max-preempt-count=2",
                "--cpu-mem-size=5",
            ),
        ),
        build=MINDIE,
        gpus=(0, 1, 2, 3),
        device_type="npu",
        cann_chip="310p",
        cann_version="8.2.RC1",
        **FOLDER,
    ),
    "mindie_main_of_two_workers": context(
        model(source=REPOSITORY, backend="ascend-mindie"),
        build=MINDIE,
        placement=TWO_NPU_WORKERS,
        gang=NPU_PAIR,
        ports=(40000, 40001, 40002),
        address="10.0.0.1",
        interface="eth0",
        device_type="npu",
        **FOLDER,
    ),
    "mindie_follower": context(
        model(source=REPOSITORY, backend="ascend-mindie", backend_parameters=("--enable-split",)),
        build=MINDIE,
        placement=TWO_NPU_WORKERS,
        gang=NPU_PAIR,
        member=1,
        ports=(40007,),
        address="10.0.0.2",
        device_type="npu",
        **FOLDER,
    ),
    "tei_on_cpu": context(
        model(source=REPOSITORY, backend="tei", categories=("embedding",)), build=TEI, api_key="k", **FOLDER
    ),
    "tei_reranker_on_one_gpu": context(
        model(
            source=REPOSITORY,
            backend="tei",
            categories=("reranker",),
            backend_parameters=("--max-batch-tokens=4096",),
        ),
        build=TEI,
        gpus=(1,),
        device_type="cuda",
        **FOLDER,
    ),
    "transformers_on_cpu": context(
        model(source=REPOSITORY, backend="transformers"), build=TRANSFORMERS, api_key="k", **FOLDER
    ),
    "transformers_on_one_gpu": context(
        model(source=REPOSITORY, backend="transformers", backend_parameters=("--dtype=bfloat16",)),
        build=TRANSFORMERS,
        gpus=(1,),
        device_type="cuda",
        **FOLDER,
    ),
}


def _asked(probe: Probe | None) -> str:
    return "as it runs" if probe is None else (probe.path or "port")


def shown(launch: LaunchSpec) -> str:
    health = launch.health
    lines = [*(f"env {name}={value}" for name, value in launch.env.items())]
    lines += [
        f"arg {word.replace(sys.executable, '<python>').replace(PACKAGE, '<gpustack>')}"
        for word in launch.argv
    ]
    for name, content in launch.files.items():
        lines += [f"file {name}: {line}" for line in content.splitlines()]
    for name, view in launch.views.items():
        lines += [
            f"folder {name} of {view.source}, but {file}: {json.dumps(view.changes[file])}"
            for file in view.changes
        ]
    lines += [f"ready {_asked(health.readiness)}", f"alive {_asked(health.liveness)}"]
    lines += [f"start within {health.start_deadline:.0f} s, stop within {health.stop_grace:.0f} s"]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_the_command_line_is_the_recorded_one(name: str) -> None:
    case = CASES[name]
    assert shown(engine_for(settled(case.model, ())).launch(case)) == (GOLDEN / f"{name}.txt").read_text()


def test_every_recorded_command_line_has_its_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(CASES)
