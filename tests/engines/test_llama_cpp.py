from __future__ import annotations

from typing import Any

import attrs
import pytest

from gpustack.domain.artifact import LoraAdapter, ModelSource, SourceKind
from gpustack.domain.instance import Claim
from gpustack.domain.model import Category, GpuSelector
from gpustack.domain.worker import EngineBuild
from gpustack.engines import parameters
from gpustack.engines.llama_cpp import ENGINE, threads

from .worlds import EMBEDDED, SERVER, context, model

SELECTED = GpuSelector(gpu_ids=("w:cuda:0",))


def test_a_sound_deployment_has_no_faults() -> None:
    assert ENGINE.faults(model(backend_parameters=("--ctx-size=4096", "-ngl", "20", "--jinja"))) == []


@pytest.mark.parametrize(
    "flag",
    ["--host", "--port=1", "-m /x", "--model", "-a x", "--alias", "--api-key=k", "--api_key k", "--rpc a:1"],
)
def test_what_the_worker_decides_cannot_be_overridden(flag: str) -> None:
    [fault] = ENGINE.faults(model(backend_parameters=(flag,)))
    assert fault.startswith(f"Backend parameter {parameters.read([flag])[0].flag} cannot be set: ")


@pytest.mark.parametrize(
    ("items", "fault"),
    [
        (("-ngl", "all"), "--gpu-layers must be an integer from 0 to 999"),
        (("-ngl", "1000"), "--gpu-layers must be an integer from 0 to 999"),
        (("--ctx-size=-1",), "--ctx-size needs a positive integer, not '-1'"),
        (("--parallel", "0"), "--parallel needs a positive integer, not '0'"),
        (("--cache-type-k=q3",), "--cache-type-k is 'q3', not one of f32, f16"),
        (("8192",), "'8192' follows no flag"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_it_should_be(items: tuple[str, ...], fault: str) -> None:
    [said] = ENGINE.faults(model(backend_parameters=items))
    assert fault in said


@pytest.mark.parametrize("items", [("--tensor-split", "1,1"), ("-ts=1,1",), ("-ngl", "0")])
def test_gpus_picked_by_hand_exclude_parameters_that_contradict_them(items: tuple[str, ...]) -> None:
    assert ENGINE.faults(model(backend_parameters=items)) == []
    assert len(ENGINE.faults(model(backend_parameters=items, gpu_selector=SELECTED))) == 1


def test_all_faults_are_told_at_once() -> None:
    source = ModelSource(kind=SourceKind.HUGGING_FACE, huggingface_repo_id="a/b-GGUF")
    faults = ENGINE.faults(model(source=source, backend_parameters=("--port=1", "--ctx-size=x")))
    assert len(faults) == 3
    assert "huggingface_filename" in faults[0]


def test_the_users_parameters_come_last_so_that_they_win() -> None:
    launch = ENGINE.launch(context(model(backend_parameters=("--cache-ram=1024",))))
    assert launch.argv[-2:] == ("--cache-ram", "1024")
    assert parameters.number_of(launch.argv, "--cache-ram") == 1024


@pytest.mark.parametrize(
    ("items", "claimed", "slots", "each"),
    [
        ((), 4, 4, 8192),
        ((), 2, 2, 8192),
        ((), None, 1, 8192),
        (("-c", "32768"), 4, 4, 32768),
        (("--ctx-size=32768",), 1, 1, 32768),
        (("-np 8",), 8, 8, 8192),
        (("--parallel=8", "--ctx-size=32768"), 8, 8, 4096),
        (("--parallel=8", "--ctx-size=32768", "-kvu"), 8, 8, 32768),
        (("-kvu", "--no-kv-unified"), 4, 4, 8192),
    ],
)
def test_each_slot_has_the_context_of_one_request(
    items: tuple[str, ...], claimed: int | None, slots: int, each: int
) -> None:
    deployed = model(backend_parameters=items)
    argv = ENGINE.launch(context(deployed, claim=Claim(slots=claimed))).argv
    in_all = each if "-kvu" in items and "--no-kv-unified" not in items else slots * each
    assert parameters.number_of(argv, "-c", "--ctx-size") == in_all
    assert parameters.number_of(argv, "-np", "--parallel") == slots
    assert sum(word in ("-c", "--ctx-size", "-np", "--parallel") for word in argv) == 2
    assert ENGINE.context(deployed) == each


def test_a_llama_server_is_bounded_by_variables_that_its_older_versions_pass_over() -> None:
    embedded, server = (ENGINE.launch(context(model(), build=build)) for build in (EMBEDDED, SERVER))
    for flag, variable in (("--cache-ram", "CACHE_RAM"), ("--ctx-checkpoints", "CTX_CHECKPOINTS")):
        bound = parameters.value_of(embedded.argv, flag)
        assert (flag in server.argv, server.env[f"LLAMA_ARG_{variable}"]) == (False, bound)


@pytest.mark.parametrize(
    ("items", "found", "given"),
    [
        ((), None, None),
        ((), "/models/mmproj-f16.gguf", "/models/mmproj-f16.gguf"),
        (("--no-mmproj",), "/models/mmproj-f16.gguf", None),
        (("--mmproj=mmproj-b.gguf",), "/models/mmproj-f16.gguf", "/models/mmproj-b.gguf"),
        (("-mm", "mmproj-b.gguf"), "/models/deep/mmproj-b.gguf", "/models/deep/mmproj-b.gguf"),
        (("--mmproj", "/else/where.gguf"), "/models/mmproj-f16.gguf", "/else/where.gguf"),
        (("--mmproj", "{data_dir}/p.gguf"), None, "/data/p.gguf"),
        (("--no-mmproj", "--mmproj", "b.gguf"), None, "/models/b.gguf"),
        (("--mmproj", "b.gguf", "--no-mmproj-auto"), None, None),
    ],
)
def test_the_projector_is_the_users_or_the_one_found_and_can_be_refused(
    items: tuple[str, ...], found: str | None, given: str | None
) -> None:
    argv = ENGINE.launch(context(model(backend_parameters=items), mmproj_path=found)).argv
    assert parameters.value_of(argv, "--mmproj") == given
    assert "--no-mmproj" not in argv and argv.count("--mmproj") == (given is not None)


def test_a_deployment_that_embeds_is_given_no_projector_unless_it_names_one() -> None:
    embeds = model(categories=("embedding",))
    assert "--mmproj" not in ENGINE.launch(context(embeds, mmproj_path="/models/mmproj.gguf")).argv
    named = attrs.evolve(embeds, backend_parameters=("--mmproj=a.gguf",))
    assert "--mmproj" in ENGINE.launch(context(named, mmproj_path="/models/mmproj.gguf")).argv


def test_a_cpu_placement_hides_every_gpu() -> None:
    env = ENGINE.launch(context(model(), build=SERVER)).env
    assert env["CUDA_VISIBLE_DEVICES"] == "-1"
    assert env["HIP_VISIBLE_DEVICES"] == "-1"


@pytest.mark.parametrize(
    ("kind", "variable"),
    [
        ("cuda", "CUDA_VISIBLE_DEVICES"),
        ("rocm", "ROCR_VISIBLE_DEVICES"),
        ("dcu", "HIP_VISIBLE_DEVICES"),
        ("npu", "ASCEND_RT_VISIBLE_DEVICES"),
        ("mlu", "MLU_VISIBLE_DEVICES"),
        (None, "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_each_vendor_is_shown_its_devices_in_ascending_order(kind: str | None, variable: str) -> None:
    env = ENGINE.launch(context(model(), build=SERVER, gpus=(2, 0), device_type=kind)).env
    assert env[variable] == "0,2"


def test_only_the_embedded_build_is_told_how_long_to_drain() -> None:
    assert "--drain-seconds" in ENGINE.launch(context(model())).argv
    assert "--drain-seconds" not in ENGINE.launch(context(model(), build=SERVER)).argv


def test_a_drain_fits_into_the_grace_before_the_kill() -> None:
    launch = ENGINE.launch(context(model()))
    assert float(parameters.value_of(launch.argv, "--drain-seconds") or 0) < launch.health.stop_grace


def test_few_cores_all_generate_and_of_many_half() -> None:
    assert [threads(n) for n in (0.5, 1, 2, 4, 6, 8, 64)] == [1, 1, 2, 4, 4, 4, 32]


@pytest.mark.parametrize("number", ["²", "9" * 5000, "0", "-1", "1e3", "4294967296"], ids=lambda n: n[:6])
def test_a_number_that_the_engine_would_read_otherwise_is_refused(number: str) -> None:
    for flag in ("--ctx-size", "--parallel"):
        assert ENGINE.faults(model(backend_parameters=(flag, number)))


@pytest.mark.parametrize(
    ("items", "tokens"),
    [
        ((), 8192),
        (("--ctx-size=16384",), 16384),
        (("-c", "1024", "--ctx-size", "2048"), 2048),
        (("--no-context-shift",), 8192),
        (("--context-shift",), None),
        (("--no-context-shift", "--context-shift"), None),
    ],
)
def test_an_answer_ends_with_the_context_unless_that_shifts(
    items: tuple[str, ...], tokens: int | None
) -> None:
    assert ENGINE.context(model(backend_parameters=items)) == tokens
    assert ENGINE.context(model(backend_parameters=items, env={"LLAMA_ARG_CONTEXT_SHIFT": "1"})) is None


@pytest.mark.parametrize("build", [SERVER, EMBEDDED])
def test_the_key_stands_in_the_environment_where_no_deployment_can_set_another(build: EngineBuild) -> None:
    launch = ENGINE.launch(context(model(env={"LLAMA_API_KEY": "other"}), build=build, api_key="k1"))
    assert launch.env["LLAMA_API_KEY"] == "k1"
    assert not any("k1" in word for word in launch.argv)


def test_a_context_written_with_underscores_is_the_users_too() -> None:
    argv = ENGINE.launch(context(model(backend_parameters=("--ctx_size=4096", "--parallel=1")))).argv
    assert [word for word in argv if "ctx" in word and "size" in word] == ["--ctx-size"]
    assert argv[argv.index("--ctx-size") + 1] == "4096"


@pytest.mark.parametrize("path", ["/a,b.gguf", "/a:b.gguf"])
def test_an_adapter_whose_path_would_be_taken_apart_is_refused(path: str) -> None:
    source = ModelSource(kind=SourceKind.LOCAL_PATH, local_path=path)
    [fault] = ENGINE.faults(model(lora_adapters=(LoraAdapter(name="at", source=source),)))
    assert fault.startswith("lora_adapters: the path of at has a comma or a colon")


@pytest.mark.parametrize(
    ("version", "fields", "level"),
    [
        ("2026.10.11549", {}, "4"),
        ("9300", {}, "4"),
        ("9181", {}, None),
        ("b9300", {}, None),
        (None, {}, None),
        ("9300", {"backend_parameters": ("-lv", "2")}, "2"),
        ("9300", {"backend_parameters": ("--verbose",)}, None),
        ("9300", {"env": {"LLAMA_ARG_LOG_VERBOSITY": "1"}}, None),
        ("9300", {"categories": (Category.EMBEDDING,)}, None),
    ],
)
def test_a_build_that_writes_no_requests_down_is_to_tell_the_sizes_of_its_buffers(
    version: str | None, fields: dict[str, Any], level: str | None
) -> None:
    build = attrs.evolve(SERVER, version=version)
    launch = ENGINE.launch(context(model(**fields), build=build))
    flags = ("--log-verbosity", "--verbosity", "-lv")
    assert parameters.value_of(launch.argv, *flags) == level
