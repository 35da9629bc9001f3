"""What other products have deployed becomes manifests; what cannot is named; no secret is printed."""

from __future__ import annotations

import importlib
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gpustack.cli.failure import UsageError
from gpustack.domain.yaml_lines import read_documents
from gpustack.errors import GpustackError, Unauthorized
from gpustack.store.database import open_database
from gpustack.store.migration import migrate
from tests.databases import PASSWORD, SERVERS, running
from tests.fakes.foreign import (
    DEPLOYMENT,
    GPUSTACK,
    LITELLM,
    LLAMA_SWAP,
    OLLAMA,
    SECRET,
    answering,
    fill,
    gpustack_database,
    listed,
)

command = importlib.import_module("gpustack.cli.commands.import")
"""Its name is a word of the language."""
KEY = {"GPUSTACK_IMPORT_KEY": "the-key-of-an-administrator"}

Output = pytest.CaptureFixture[str]


def nested(deep: int) -> Any:
    """Lists in lists."""
    made: Any = "x"
    for _ in range(deep):
        made = [made]
    return made


def imported(output: Output, *argv: str, **env: str) -> tuple[dict[str, dict[str, Any]], str]:
    """The manifests by name, and the whole text."""
    assert command.run(argv, env) == 0
    said = output.readouterr()
    documents, faults = read_documents(said.out.encode())
    assert faults == []
    assert SECRET not in said.out + said.err
    assert (said.out + said.err).replace("\n", "").isprintable()
    return {one.value["name"]: one.value for one in documents if one.value}, said.out


def test_ollama_has_its_models_parameters_and_hubs(capsys: Output) -> None:
    with answering(OLLAMA) as url:
        found, text = imported(capsys, f"--from-url={url}")
        with_replicas, _ = imported(capsys, f"--from-url={url}", "--replicas=1")
    assert found["llama3.2"] == {
        "kind": "Model",
        "name": "llama3.2",
        "source": "ollama_library",
        "ollama_library_model_name": "llama3.2:latest",
        "replicas": 0,
        "backend_parameters": ["--ctx-size=16384", "--no-mmap", "--temp=0.6"],
    }
    assert "parameters not carried over: stop, seed" in text and "system: not carried over" in text
    hub = found["hf.co/bartowski/Qwen3-4B-GGUF:Q5_K_M"]
    assert (hub["huggingface_repo_id"], hub["huggingface_filename"]) == (
        "bartowski/Qwen3-4B-GGUF",
        "*Q5_K_M*.gguf",
    )
    assert found["nomic-embed-text:v1.5"]["categories"] == ["embedding"]
    assert found["mario"]["ollama_library_model_name"] == "llama3.2:1b"
    assert len(found) == 4
    for name in ("gpt-oss:120b-cloud", "far:cloud"):
        assert f"{name}: it runs at another company" in text
    assert "ours/thing:latest: it was made of a file on that machine" in text
    assert "text:latest: /api/show answered something that tells of no model" in text
    assert "/api/show answered 404" in text and "its format is 'safetensors'" in text
    assert with_replicas["mario"].get("replicas", 1) == 1


def test_gpustack_2_is_read_with_a_key_and_says_who_could_use_what(capsys: Output) -> None:
    with answering(GPUSTACK, KEY["GPUSTACK_IMPORT_KEY"]) as url:
        found, text = imported(capsys, f"--from-url={url}", **KEY)
        with pytest.raises(Unauthorized, match="GPUSTACK_IMPORT_KEY"):
            command.run([f"--from-url={url}"], {"GPUSTACK_IMPORT_KEY": "another"})
    assert found == {
        "qwen3": {
            "kind": "Model",
            "name": "qwen3",
            "source": "huggingface",
            "huggingface_repo_id": "Qwen/Qwen3-0.6B",
            "replicas": 2,
            "categories": ["llm"],
            "placement_strategy": "binpack",
            "backend": "vllm",
            "backend_parameters": ["--max-model-len=4096"],
            "env": {"LOG_LEVEL": "debug"},
            "access_policy": "allowed_users",
        }
    }
    for sentence in (
        "was open to ann; make the accounts",
        "for want of a counterpart: image_name",
        "backend_version: left out",
        "gpu_selector: left out",
        "env: HF_TOKEN left out",
        "backend_parameters: --api-key, --hf-token left out",
        "Model/rented: Backend 'Ktransformers-custom' is not known here",
        "account ann: make the account anew",
        "API key ci: make it anew",
        "backend Own: it is a container image",
        "route both: a model has one route",
        "worker node-a: install GPUStack on it",
    ):
        assert sentence in text, sentence
    assert "account admin" not in text and "backend vLLM" not in text


def test_gpustack_07_is_read_over_its_api(capsys: Output) -> None:
    old = {**DEPLOYMENT, "backend": "llama-box", "huggingface_filename": "q.gguf", "embedding_only": True}
    old = {name: value for name, value in old.items() if name not in ("image_name", "categories", "state")}
    switches = {"cpu_offloading": True, "distributed_inference_across_workers": True}
    heard = {**old, **switches, "name": "heard", "backend": "vox-box", "backend_parameters": []}
    heard |= {
        "huggingface_repo_id": "Systran/faster-whisper-tiny",
        "huggingface_filename": None,
        "embedding_only": None,
    }
    documents = {"/version": {"version": "0.7.1"}, "/v1/models": {**listed(old, heard), "object": "list"}}
    with answering(documents) as url:
        found, text = imported(capsys, f"--from-url={url}")
    assert (found["qwen3"]["backend"], found["qwen3"]["categories"]) == ("llama-box", ["embedding"])
    assert "accounts: could not be read with this key" in text
    assert "distributed_inference_across_workers" not in found["heard"]
    assert "distributed_inference_across_workers: left out: its engine" in text


@pytest.mark.parametrize("second", [False, True], ids=["0.7", "2.x"])
def test_a_database_is_read_and_stays_as_it_is(tmp_path: Path, capsys: Output, second: bool) -> None:
    path = gpustack_database(tmp_path, second=second)
    path.chmod(0o400)
    before = path.read_bytes()
    places = [str(path), f"sqlite:///{path}"]
    (found, text), again = (imported(capsys, f"--from-db={place}") for place in places)
    assert found == again[0]
    expected = {
        "kind": "Model",
        "name": "qwen",
        "source": "huggingface",
        "huggingface_repo_id": "Qwen/Qwen3-4B-GGUF",
        "huggingface_filename": "*Q4_K_M*.gguf",
        "replicas": 2,
        "categories": ["embedding"],
        "placement_strategy": "binpack",
        "cpu_offloading": True,
        "worker_selector": {"os": "linux"},
        "backend": "llama-box",
        "backend_parameters": ["--ctx-size=16384"],
        "env": {"A": "1"},
        "restart_on_error": False,
    }
    if second:
        expected |= {"access_policy": "allowed_users"}
    assert found["qwen"] == expected
    assert ("was open to ann" in text, "2.x" in text) == (second, second)
    assert list(found) == ["qwen"] and "account ann" in text and "API key ci" in text
    assert path.read_bytes() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == [path.name]


@pytest.mark.slow
@pytest.mark.parametrize("kind", SERVERS)
def test_a_database_with_a_server_is_read_with_a_password(kind: str, capsys: Output) -> None:
    with running(kind) as server:
        url = server.create()
        fill(driven_url(url), second=True)
        bare = re.sub(r":[^:/@]*@", "@", url)
        found, text = imported(capsys, f"--from-db={bare}", GPUSTACK_IMPORT_KEY=PASSWORD)
        assert list(found) == ["qwen"] and "was open to ann" in text
        with pytest.raises(GpustackError, match="cannot be read"):
            command.run([f"--from-db={bare}"], {"GPUSTACK_IMPORT_KEY": "another"})


def driven_url(url: str) -> str:
    """The URL with the driver that is installed."""
    return url.replace("postgresql:", "postgresql+psycopg:").replace("mysql:", "mysql+pymysql:")


def test_llama_swap_has_its_commands_macros_and_environments(tmp_path: Path, capsys: Output) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(LLAMA_SWAP)
    env = {"MODELS": "/models", "MY_TOKEN": SECRET}
    found, text = imported(capsys, f"--from-config={path}", **env)
    assert found["coder"] == {
        "kind": "Model",
        "name": "coder",
        "source": "local_path",
        "local_path": "/models/coder.gguf",
        "backend": "llama-box",
        "backend_parameters": ["--ctx-size=16384", "-ngl=99", "--jinja"],
        "env": {"GGML_X": "1"},
        "limits": {"concurrent_requests": 4},
    }
    assert (found["hub"]["huggingface_filename"], found["hub"]["replicas"]) == ("*Q5_K_M*.gguf", 0)
    assert (found["vl"]["backend"], found["vl"]["backend_parameters"]) == ("vllm", ["--max-model-len=4096"])
    assert found["other"]["command"] == "/usr/bin/tei --port {port} --prefix 'a b'"
    assert found["other"]["health_path"] == "/healthz"
    assert (found["python"]["backend"], found["python"]["huggingface_repo_id"]) == ("vllm", "Qwen/Qwen3-8B")
    assert found["docker"]["backend"] == "custom" and "it starts a container" in text
    assert sorted(found) == ["coder", "docker", "hub", "other", "python", "vl"]
    for sentence in (
        "apiKeys: make keys anew",
        "groups: which models run together",
        "alias gpt-4o-mini of coder",
        "ttl: not carried over",
        "env: CUDA_VISIBLE_DEVICES left out",
        "Model/relative: the path x.gguf of its file is relative",
        "Model/endless: its macros have no end",
        "Model/secret: its command takes MY_TOKEN from the environment",
        "Model/fixed: its command does not take ${PORT}",
        "Model/empty: it has no cmd that is text",
        "Model/windows: its command is one of Windows",
        "Model/router: its command names no model",
    ):
        assert sentence in text, sentence


def test_litellm_has_what_it_calls_at_ollama(tmp_path: Path, capsys: Output) -> None:
    path, out = tmp_path / "config.yaml", tmp_path / "manifests.yaml"
    path.write_text(LITELLM)
    found, text = imported(capsys, f"--from-config={path}")
    assert found["local"]["ollama_library_model_name"] == "llama3.2"
    assert found["vl"] == {
        "kind": "Model",
        "name": "vl",
        "source": "huggingface",
        "huggingface_repo_id": "Qwen/Qwen3-8B",
        "backend": "vllm",
        "limits": {"requests_per_minute": 60},
    }
    hub = found["hub"]
    assert (hub["huggingface_filename"], hub["categories"]) == ("*Q5_K_M*.gguf", ["embedding"])
    assert sorted(found) == ["hub", "local", "vl"]
    for sentence in (
        "Model/gpt: openai serves it",
        "Model/theirs: it is called at http://gpu2:8000/v1",
        "the options of the vLLM at http://gpu1:8000/v1 are not known here",
        "Model/local: its requests are spread over several deployments",
        "Model/*: it stands for all models of Ollama",
        "Model/bare: it has no model in litellm_params",
    ):
        assert sentence in text, sentence
    assert command.run([f"--from-config={path}", f"--file={out}"], {}) == 0
    assert (out.read_text(), out.stat().st_mode & 0o777) == (text, 0o600)


def test_a_password_on_the_command_line_and_what_is_nothing_known_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for argv, sentence in (
        ([f"--from-db=postgresql://u:{SECRET}@h/d"], "leave the password out"),
        ([f"--from-url=http://u:{SECRET}@h"], "leave the password out"),
        (["--from-url=[::1"], "--from-url must be an address"),
        (["--from-url=http://h:99999"], "--from-url must be an address"),
        ([f"--from-db={path}"], "is no file"),
        ([f"--from-config={path}"], "No such file"),
        (["--from-db=strange://h/d"], "database"),
    ):
        with pytest.raises(GpustackError, match=sentence) as raised:
            command.run(argv, {"GPUSTACK_IMPORT_KEY": "x"})
        assert SECRET not in str(raised.value)
    path.write_text("a: 1")
    with pytest.raises(UsageError, match="neither a configuration of llama-swap"):
        command.run([f"--from-config={path}"], {})
    with pytest.raises(GpustackError, match="cannot be read as a database"):
        command.run([f"--from-db={path}"], {})
    own = tmp_path / "own.db"
    database = open_database(f"sqlite:///{own}")
    migrate(database)
    database.close()
    with pytest.raises(GpustackError, match="gpustack export writes manifests"):
        command.run([f"--from-db={own}"], {})
    with answering({}) as url, pytest.raises(GpustackError, match="neither GPUStack nor Ollama"):
        command.run([f"--from-url={url}"], {})


@pytest.mark.attack("parser")
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"/v2/models": listed({**DEPLOYMENT, "env": nested(300)})}, "nested more than 50 deep"),
        ({"/v2/models": listed({**DEPLOYMENT, "name": ["a"]})}, None),
        (
            {
                "/v2/models": listed(
                    {**DEPLOYMENT, "id": [1], "backend": {}, "categories": 7, "replicas": "x"}
                )
            },
            None,
        ),
        (
            {
                "/v2/model-routes": listed(
                    *({"id": one, "created_model_id": one} for one in ([1], {}, "../1", True))
                )
            },
            None,
        ),
        (
            {"/v2/users": {**listed({"username": "ann"}), "pagination": {"page": 1, "totalPage": 1 << 60}}},
            None,
        ),
        ({"/v2/users": listed({"username": nested(20)}, {"is_system": 3})}, None),
    ],
)
def test_a_server_that_answers_nonsense_breaks_nothing(
    change: dict[str, Any], told: str | None, capsys: Output
) -> None:
    with answering({**GPUSTACK, **change}, KEY["GPUSTACK_IMPORT_KEY"]) as url:
        if told is None:
            imported(capsys, f"--from-url={url}", **KEY)
        else:
            with pytest.raises(GpustackError, match=told):
                command.run([f"--from-url={url}"], KEY)


@pytest.mark.attack("flood")
def test_a_server_that_never_ends_telling_is_left(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpustack.cli.importers import gpustack_api

    endless = {**listed({"username": "ann"}), "pagination": {"page": 1, "totalPage": 1 << 60}}
    monkeypatch.setattr(gpustack_api, "_MOST_REQUESTS", 20)
    with (
        answering({**GPUSTACK, "/v2/users": endless}, KEY["GPUSTACK_IMPORT_KEY"]) as url,
        pytest.raises(GpustackError, match="told more than any installation"),
    ):
        command.run([f"--from-url={url}"], KEY)


@pytest.mark.attack("flood")
@pytest.mark.parametrize("column", ["hex(zeroblob(300000000))", "'[' || id || ']'"])
def test_a_database_whose_schema_computes_is_read_within_bounds(
    column: str, tmp_path: Path, capsys: Output
) -> None:
    path = tmp_path / "database.db"
    with closing(sqlite3.connect(path)) as made, made:
        made.execute(f"CREATE TABLE models (id, name, made TEXT GENERATED ALWAYS AS ({column}))")
        made.execute("CREATE TABLE users (id, username)")
        made.execute("INSERT INTO models (id, name) VALUES (1, 'a')")
        made.execute("INSERT INTO users VALUES ('[1]', 'ann')")
    if "zeroblob" in column:
        with pytest.raises(GpustackError, match="cannot be read as a database of GPUStack"):
            command.run([f"--from-db={path}"], {})
    else:
        assert command.run([f"--from-db={path}"], {}) == 0


@pytest.mark.attack("flood")
def test_macros_are_not_filled_in_beyond_what_a_command_may_have(tmp_path: Path, capsys: Output) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        f"macros: {{a: {'x' * 400_000}}}\n"
        f"models: {{big: {{cmd: '{'${a}' * 100_000}'}}, fine: {{cmd: 'llama-server --port ${{PORT}} -m /m.gguf'}}}}\n"
    )
    found, text = imported(capsys, f"--from-config={path}")
    assert list(found) == ["fine"] and "big: its macros have no end" in text
