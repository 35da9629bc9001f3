from __future__ import annotations

import json

import pytest

from gpustack.domain.artifact import LoraAdapter, ModelSource, SourceKind
from gpustack.domain.facts import FileFormat, ModelFacts
from gpustack.domain.instance import Claim
from gpustack.domain.model import Category, GpuSelector, Model
from gpustack.domain.unit import GIB
from gpustack.engines import parameters
from gpustack.engines.adapter import Adapter
from gpustack.engines.flag_list import FlagList, flags_of
from gpustack.engines.registry import engine_for
from gpustack.engines.vllm import ENGINE, VllmEngine
from gpustack.engines.vllm_flags import NEWEST

from .worlds import FOLDER, GGUF, VLLM, VLLM_CPU, context, gang, model

VLLM_ENGINE = VllmEngine()
SAFETENSORS = ModelFacts(format=FileFormat.SAFETENSORS)


def deployed(*items: str, **fields: object) -> Model:
    return model(source=FOLDER, backend_parameters=items, **fields)


def test_safetensors_run_on_vllm_unless_they_speak_or_paint() -> None:
    assert engine_for(deployed(), SAFETENSORS).name == "vllm"
    whisper = ModelFacts(format=FileFormat.SAFETENSORS, category=Category.SPEECH_TO_TEXT)
    assert engine_for(deployed(), whisper).name == "vllm"
    for category in (Category.TEXT_TO_SPEECH, Category.IMAGE):
        assert not ENGINE.serves(deployed(categories=(category,)), SAFETENSORS)
        assert not ENGINE.serves(deployed(), ModelFacts(format=FileFormat.SAFETENSORS, category=category))


def test_a_sound_deployment_has_no_faults() -> None:
    given = (
        "--max_model_len=4096",
        "-tp 2",
        "--enforce-eager",
        "--compilation-config.mode 3",
        '--speculative-config {"method":"ngram","num_speculative_tokens":3}',
        "-O3",
        "--allowed-origins",
        "http://a http://b",
        "--max-model-len",
        "-1",
        "--reasoning-parser=qwen3",
        "--enable-auto-tool-choice",
        "--tool-call-parser hermes",
    )
    assert ENGINE.faults(deployed(*given)) == []


@pytest.mark.parametrize(
    "flag",
    ["--host", "--port=1", "--model x", "--served_model_name a", "--api-key k", "--ssl-keyfile x", "--nnodes 2",
     "-n 2", "-r 0", "--master-addr a", "--headless", "--distributed-executor-backend ray", "--uds /x",
     "--config f", "--hf-token t", "-dpn 1"],
)  # fmt: skip
def test_what_the_worker_decides_cannot_be_overridden(flag: str) -> None:
    [fault] = ENGINE.faults(deployed(flag))
    assert fault.startswith(f"Backend parameter {parameters.read([flag])[0].flag} cannot be set: ")


@pytest.mark.parametrize("flag", ["--hos", "--po=1", "--served", "--api", "--head"])
def test_nor_by_the_beginning_of_its_name_which_argparse_would_take(flag: str) -> None:
    faults = ENGINE.faults(deployed(flag))
    assert len(faults) == 1 and "cannot be set: " in faults[0]
    assert (
        "cannot be set: "
        in VLLM_ENGINE.faults_for(deployed(flag), FlagList(version="9", names=frozenset()))[0]
    )


@pytest.mark.parametrize(
    ("flag", "meant"),
    [
        ("--max-modell-len", "; did you mean --max-model-len?"),
        ("--tensor-parallel", "; did you mean --tensor-parallel-size?"),
        ("--enforce-eagr", "; did you mean --enforce-eager?"),
        ("--frobnicate", ""),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(flag: str, meant: str) -> None:
    [fault] = ENGINE.faults(deployed(flag))
    assert fault == (
        f"Backend parameter {flag} is not known to vLLM {NEWEST.version}{meant} "
        "(for another version set backend_version)"
    )


def test_names_are_those_of_the_version_that_runs_it() -> None:
    newer = FlagList(version="9.9.0", names=frozenset({"--brand-new"}))
    assert ENGINE.faults(deployed("--brand-new", backend_version="9.9.0")) == []
    assert VLLM_ENGINE.faults_for(deployed("--brand-new"), newer) == []
    [fault] = VLLM_ENGINE.faults_for(deployed("--enforce-eager"), newer)
    assert fault == "Backend parameter --enforce-eager is not known to vLLM 9.9.0"
    assert len(ENGINE.faults(deployed("--brand-new", backend_version=NEWEST.version))) == 1


def test_a_parameter_of_a_former_version_is_told_what_to_do_instead() -> None:
    [fault] = ENGINE.faults(deployed("--task=embed"))
    assert fault == (
        "Backend parameter --task is of an older vLLM: set the model's categories, or --runner and --convert"
    )
    old = FlagList(version="0.8.0", names=frozenset({"--task"}))
    assert VLLM_ENGINE.faults_for(deployed("--task=embed"), old) == []
    assert ENGINE.faults(deployed("--task=embed", backend_version="0.8.5")) == []


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"source": GGUF}, "is GGUF: set backend to llama-box"),
        (
            {"source": ModelSource(kind=SourceKind.OLLAMA, ollama_library_model_name="qwen3")},
            "is GGUF: set backend to llama-box",
        ),
        ({"cpu_offloading": True}, "CPU offloading is not available"),
        ({"categories": ("image",)}, "does not serve models of category image"),
        ({"backend_parameters": ("-tp", "0")}, "--tensor-parallel-size needs a positive integer, not '0'"),
        ({"backend_parameters": ("two",)}, "'two' follows no flag"),
        (
            {"backend_parameters": ("-tp", "4"), "gpu_selector": GpuSelector(gpu_ids=("w:cuda:0",))},
            "ask for 4 GPUs, but 1 are selected",
        ),
    ],
)  # fmt: skip
def test_a_wrong_deployment_is_told_what_is_wrong(fields: dict[str, object], sentence: str) -> None:
    [fault] = ENGINE.faults(model(**{"source": FOLDER, **fields}))
    assert sentence in fault


@pytest.mark.parametrize(
    ("items", "tokens"),
    [((), 8192), (("--max-model-len=4096",), 4096), (("--max-model-len", "8k"), 8000),
     (("--max-model-len", "8K"), 8192), (("--max-model-len", "auto"), None), (("--max-model-len", "-1"), None)],
)  # fmt: skip
def test_the_context_is_the_users_or_ours(items: tuple[str, ...], tokens: int | None) -> None:
    assert ENGINE.context(deployed(*items)) == tokens


def argv(deployment: Model, **fields: object) -> tuple[str, ...]:
    return ENGINE.launch(context(deployment, **{"build": VLLM, **fields})).argv  # type: ignore[arg-type]


def test_a_claim_becomes_the_bytes_of_the_cache_and_the_share_that_must_be_free() -> None:
    claim = Claim(vram={0: 20 * GIB}, context=4096, kv_cache=5 * GIB)
    given = {"gpus": (0,), "claim": claim, "device_memory": {0: 80 * GIB}}
    words = argv(deployed(), **given)
    assert parameters.value_of(words, "--max-model-len") == "4096"
    assert parameters.value_of(words, "--kv-cache-memory-bytes") == str(5 * GIB)
    assert parameters.value_of(words, "--gpu-memory-utilization") == "0.25"
    own = argv(deployed("--gpu-memory-utilization=0.5", "--max-model-len", "1k"), **given)
    assert "--kv-cache-memory-bytes" not in own
    assert own.count("--max-model-len") == 1 and own.count("--gpu-memory-utilization") == 1


@pytest.mark.parametrize(
    ("gpus", "others", "items", "found"),
    [
        ((0,), (), (), (None, None)),
        ((0, 1, 2, 3), (), (), ("4", None)),
        ((0, 1), ((0, 1), (2, 3)), (), ("2", "3")),
        ((0,), ((0,),), (), (None, "2")),
        ((0,), ((0,),), ("-tp", "2"), ("2", None)),
        ((), ((),), (), (None, "2")),
    ],
)
def test_gpus_of_a_worker_work_in_parallel_and_workers_one_after_the_other(
    gpus: tuple[int, ...],
    others: tuple[tuple[int, ...], ...],
    items: tuple[str, ...],
    found: tuple[str | None, str | None],
) -> None:
    members = {"gang": gang(gpus, *others)} if others else {}
    words = argv(deployed(*items), gpus=gpus, others=others, **members)
    assert found == (
        parameters.value_of(words, "--tensor-parallel-size", "-tp"),
        parameters.value_of(words, "--pipeline-parallel-size"),
    )


def test_a_gang_meets_at_a_port_of_its_main_member_over_the_interface_of_each() -> None:
    for member, interface in ((0, "eth0"), (1, "enp3s0")):
        launch = ENGINE.launch(
            context(
                deployed(),
                build=VLLM,
                gpus=(0, 1),
                others=((2, 3),),
                gang=gang((0, 1), (2, 3)),
                member=member,
                address=f"10.0.0.{member + 1}",
                interface=interface,
                device_type="cuda",
            )
        )
        words = launch.argv
        assert parameters.value_of(words, "--nnodes") == "2"
        assert parameters.value_of(words, "--node-rank") == str(member)
        assert parameters.value_of(words, "--master-addr") == "10.0.0.1"
        assert parameters.value_of(words, "--master-port") == "40001"
        assert ("--headless" in words) == (member == 1) == ("--port" not in words)
        assert launch.env["VLLM_HOST_IP"] == f"10.0.0.{member + 1}"
        assert launch.env["GLOO_SOCKET_IFNAME"] == launch.env["NCCL_SOCKET_IFNAME"] == interface
        assert launch.env["CUDA_VISIBLE_DEVICES"] == ("2,3" if member else "0,1")
        assert (launch.health.readiness is None) == (member == 1)


def test_on_ray_the_launcher_is_told_which_device_each_rank_has() -> None:
    launch = ENGINE.launch(
        context(
            deployed(),
            build=VLLM,
            gpus=(0, 1),
            others=((3,),),
            gang=gang((0, 1), (3,), main_ports=(40000,)),
            address="10.0.0.1",
            interface="eth0",
            ray_environment={"RAY_ADDRESS": "10.0.0.1:40096"},
        )
    )
    python, program, bundles, *rest = launch.argv
    assert python == "/opt/vllm/bin/python" and program.endswith("gpustack/launchers/vllm_ray.py")
    assert json.loads(bundles) == [
        {"ip": "10.0.0.1", "device": 0},
        {"ip": "10.0.0.1", "device": 1},
        {"ip": "10.0.0.2", "device": 3},
    ]
    assert rest[:2] == ["serve", "/models/m.gguf"]
    assert parameters.value_of(rest, "--distributed-executor-backend") == "ray"
    assert parameters.value_of(rest, "--pipeline-parallel-size") == "3", "uneven: one stage a device"
    assert "--nnodes" not in rest
    assert launch.env["RAY_ADDRESS"] == "10.0.0.1:40096"
    assert "GLOO_SOCKET_IFNAME" not in launch.env, "each node of Ray has its own"


def test_the_key_is_in_the_environment_alone() -> None:
    launch = ENGINE.launch(context(deployed(), build=VLLM, api_key="secret"))
    assert launch.env["VLLM_API_KEY"] == "secret" and "secret" not in " ".join(launch.argv)


def test_it_asks_nobody_and_tells_nobody_unless_the_user_wants_it() -> None:
    env = ENGINE.launch(context(deployed(env={"HF_HUB_OFFLINE": "0"}), build=VLLM)).env
    assert (env["VLLM_NO_USAGE_STATS"], env["DO_NOT_TRACK"], env["HF_HUB_OFFLINE"]) == ("1", "1", "0")
    assert (env["VLLM_HOST_IP"], env["GLOO_SOCKET_IFNAME"]) == ("127.0.0.1", "lo")


@pytest.mark.parametrize("category", ["embedding", "reranker"])
def test_a_model_that_embeds_or_ranks_is_not_made_to_write(category: str) -> None:
    assert parameters.value_of(argv(deployed(categories=(category,))), "--runner") == "pooling"
    own = argv(deployed("--runner", "generate", categories=(category,)))
    assert own.count("--runner") == 1 and parameters.value_of(own, "--runner") == "generate"


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({}, "/v1/completions"),
        ({"categories": ("embedding",)}, "/v1/embeddings"),
        ({"categories": ("reranker",)}, None),
        ({"categories": ("speech_to_text",)}, None),
    ],
)
def test_a_first_request_is_made_before_it_is_announced(fields: dict[str, object], path: str | None) -> None:
    warm_up = ENGINE.launch(context(deployed(**fields), build=VLLM)).health.warm_up
    assert (None if warm_up is None else warm_up.path) == path
    assert warm_up is None or json.loads(warm_up.body)["model"] == "m"


LORA = LoraAdapter(name="a", source=FOLDER)
_SEE = "please check the stack trace above for the root cause"
HOT = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"


def test_adapters_are_loaded_at_the_start_and_the_engine_takes_more_later() -> None:
    adapters = (Adapter(name="m:a", path="/l/a", rank=64), Adapter(name="m:b", path="/l/b"))
    launch = ENGINE.launch(context(deployed(lora_adapters=(LORA,)), build=VLLM, adapters=adapters))
    at = launch.argv.index("--lora-modules")
    assert [json.loads(word)["name"] for word in launch.argv[at + 1 : at + 3]] == ["m:a", "m:b"]
    assert "--enable-lora" in launch.argv and parameters.value_of(launch.argv, "--max-lora-rank") == "64"
    assert launch.env[HOT] == "1"
    assert HOT not in ENGINE.launch(context(deployed(), build=VLLM)).env


def test_it_starts_with_room_for_adapters_where_all_of_them_are_to_be_loaded_later() -> None:
    launch = ENGINE.launch(context(deployed(lora_adapters=(LORA,)), build=VLLM))
    assert "--enable-lora" in launch.argv and "--lora-modules" not in launch.argv
    assert launch.env[HOT] == "1"


@pytest.mark.parametrize(
    ("items", "fields", "takes"),
    [
        ((), {}, False),
        (("--enable-lora",), {}, True),
        ((), {"lora_adapters": (LORA,)}, True),
        (("--no-enable-lora",), {"lora_adapters": (LORA,)}, False),
        ((), {"lora_adapters": (LORA,), "env": {HOT: "0"}}, False),
        (("--enable-lora", "--api-server-count=2"), {}, False),
        (("--enable-lora", "-dp 2"), {}, False),
        (("--enable-lora", "-dp 2", "--api-server-count 1"), {}, True),
    ],
)
def test_it_takes_adapters_while_it_runs_if_it_has_room_and_one_front(
    items: tuple[str, ...], fields: dict[str, object], takes: bool
) -> None:
    """With several API servers vLLM does not start where adapters may come later."""
    of = deployed(*items, **fields)
    assert VLLM_ENGINE.loads_adapters(of) is takes
    told = ENGINE.launch(context(of, build=VLLM)).env.get(HOT)
    assert told == {True: "1", False: (of.env.get(HOT))}[takes]


def test_what_adapters_it_has_is_read_from_its_list_of_models() -> None:
    cards = [{"id": "m", "root": "/m", "parent": None}, {"id": "m:a", "root": "/l/a", "parent": "m"}]
    assert VLLM_ENGINE.loaded(json.dumps({"object": "list", "data": cards}).encode()) == {"m:a": "/l/a"}
    for answer in (b"", b"{}", b"[1]", b'{"data": [1]}', b'{"data": 1}'):
        with pytest.raises(ValueError):
            VLLM_ENGINE.loaded(answer)


def test_a_rank_beyond_its_room_is_told_from_other_refusals() -> None:
    alone = "LoRA rank 64 is greater than max_lora_rank 16."
    refusal = f"Call to add_lora method failed: Worker failed with error '{alone}', {_SEE}"
    for said in (refusal, f"Call to add_lora method failed: {alone}", alone):
        assert VLLM_ENGINE.outgrown(deployed(), said)
    assert not VLLM_ENGINE.outgrown(deployed("--max-lora-rank=16"), refusal), "that is for the user to change"
    assert not VLLM_ENGINE.outgrown(deployed(), refusal.replace("64", "1024")), (
        "there is no room for it at all"
    )
    others = refusal.replace("LoRA rank", "vLLM does not yet support DoRA. LoRA rank")
    assert not VLLM_ENGINE.outgrown(deployed(), others), "another start would fail of it"


def test_flags_that_an_older_build_lacks_are_left_out() -> None:
    claim = Claim(kv_cache=GIB, vram={0: 2 * GIB})
    given = {"gpus": (0,), "claim": claim, "device_memory": {0: 8 * GIB}}
    old = FlagList(version="0.8.0", names=frozenset({"--gpu-memory-utilization"}))
    assert {"--shutdown-timeout", "--kv-cache-memory-bytes"} <= set(argv(deployed(), **given))
    words = argv(deployed(), **given, known_flags=old)
    assert not {"--shutdown-timeout", "--kv-cache-memory-bytes"} & set(words)
    assert parameters.value_of(words, "--gpu-memory-utilization") == "0.25"


def test_a_build_for_processors_does_not_pin_threads_to_cores() -> None:
    env = ENGINE.launch(context(deployed(), build=VLLM_CPU, cpu_count=4.5)).env
    assert (env["VLLM_CPU_OMP_THREADS_BIND"], env["OMP_NUM_THREADS"]) == ("nobind", "4")
    assert "OMP_NUM_THREADS" not in ENGINE.launch(context(deployed(), build=VLLM, cpu_count=4)).env


def test_our_own_flags_are_all_known_to_the_newest_version() -> None:
    claim = Claim(vram={0: 20 * GIB}, context=4096, kv_cache=5 * GIB)
    words = argv(
        deployed(categories=("embedding",)),
        gpus=(0, 1),
        others=((0, 1),),
        claim=claim,
        device_memory={0: 80 * GIB},
        gang=gang((0, 1), (0, 1)),
        member=1,
        adapters=(Adapter(name="a", path="/a", rank=32),),
    )
    flags = [word for word in (*words, "--host", "--port") if word.startswith("--")]
    assert len(flags) > 12 and [flag for flag in flags if not NEWEST.knows(flag)] == []


def test_flags_are_read_from_a_help_text_of_argparse() -> None:
    text = """usage: vllm serve [options]

options:
  --size N, -s N        A size, e.g. --other 3
                        --not-a-flag in the text
  --mode {a,--b,c}      A mode
  --fast, --no-fast, -f
                        Fast

   --json-arg '{"a": 1}'
"""
    assert flags_of(text) == {"--size", "-s", "--mode", "--fast", "--no-fast", "-f"}
