"""Installations of other products, made small: their answers over HTTP, their tables, their files."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa

SECRET = "hunter2-hunter2"
"""Stands in every place where these products keep one: it must never be printed."""


@contextmanager
def answering(documents: Mapping[str, Any], key: str | None = None) -> Iterator[str]:
    """A server that answers each path, or ``path model``, with its document; with ``key`` only to its bearer, except at
    ``/version``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            shown = key is None or path == "/version" or self.headers["Authorization"] == f"Bearer {key}"
            self._answer(path if shown else "refused")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(f"{self.path} {body['model']}")

        def _answer(self, name: str) -> None:
            status = 200 if name in documents else 401 if name == "refused" else 404
            body = json.dumps(documents.get(name)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *said: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


OLLAMA: dict[str, Any] = {
    "/api/version": {"version": "0.33.0"},
    "/api/tags": {
        "models": [
            {"name": "llama3.2:latest", "size": 1, "details": {"format": "gguf"}},
            {"name": "hf.co/bartowski/Qwen3-4B-GGUF:Q5_K_M", "size": 1},
            {"name": "nomic-embed-text:v1.5", "size": 1},
            {"name": "mario:latest", "size": 1},
            {"name": "gpt-oss:120b-cloud", "remote_host": "https://ollama.com:443"},
            {"name": "gone:latest"},
            {"name": "ours/thing:latest"},
            {"name": "far:cloud"},
            {"name": "text:latest"},
            {"name": "odd\x1b[2J:latest"},
            {"name": 7},
        ]
    },
    "/api/show llama3.2:latest": {
        "parameters": 'num_ctx       16384\nstop          "<|eot_id|>"\nuse_mmap false\n'
        'temperature 0.6\nseed "--model=/etc/passwd"',
        "system": "You are a pirate.",
        "details": {"format": "gguf", "parent_model": ""},
        "capabilities": ["completion", "tools"],
    },
    "/api/show hf.co/bartowski/Qwen3-4B-GGUF:Q5_K_M": {"details": {"format": "gguf"}},
    "/api/show nomic-embed-text:v1.5": {"capabilities": ["embedding"], "details": {"format": "gguf"}},
    "/api/show mario:latest": {"details": {"format": "gguf", "parent_model": "llama3.2:1b"}},
    "/api/show ours/thing:latest": {"details": {"format": "gguf", "parent_model": "/models/blobs/sha256-ab"}},
    "/api/show far:cloud": {"remote_host": "https://ollama.com:443", "details": {"format": ""}},
    "/api/show text:latest": "text",
    "/api/show odd\x1b[2J:latest": {"details": {"format": "safetensors"}},
}
"""As docs/api.md of Ollama describes them."""


def listed(*items: Any) -> dict[str, Any]:
    """A list of GPUStack."""
    page = {"page": 1, "perPage": 100, "total": len(items), "totalPage": 1}
    return {"items": list(items), "pagination": page}


DEPLOYMENT: dict[str, Any] = {
    "id": 3,
    "name": "qwen3",
    "description": None,
    "source": "huggingface",
    "huggingface_repo_id": "Qwen/Qwen3-0.6B",
    "backend": "vLLM",
    "backend_version": "0.11.0",
    "backend_parameters": ["--api-key", "first-of", SECRET, "--max-model-len=4096", f"--hf-token={SECRET}"],
    "image_name": "vllm/vllm-openai:latest",
    "env": {"HF_TOKEN": SECRET, "LOG_LEVEL": "debug"},
    "replicas": 2,
    "ready_replicas": 2,
    "placement_strategy": "binpack",
    "gpu_selector": {"gpu_ids": ["node-a:cuda:0"], "gpus_per_replica": None},
    "restart_on_error": True,
    "categories": ["llm"],
    "cluster_id": 1,
    "access_policy": "authed",
    "state": "running",
}
GPUSTACK: dict[str, Any] = {
    "/version": {"version": "2.3.0", "git_commit": "x"},
    "/v2/models": listed(
        DEPLOYMENT,
        {
            **DEPLOYMENT,
            "id": 4,
            "name": "rented",
            "backend": "Ktransformers-custom",
            "backend_parameters": [],
            "env": None,
        },
    ),
    "/v2/model-routes": listed(
        {"id": 9, "name": "qwen3", "created_model_id": 3, "access_policy": "allowed_principals"},
        {"id": 10, "name": "both", "created_model_id": None, "access_policy": "authed"},
    ),
    "/v2/model-routes/9/access": {**listed({"id": 2, "username": "ann"}), "access_policy": "allowed_users"},
    "/v2/users": listed({"id": 1, "username": "admin"}, {"id": 2, "username": "ann"}),
    "/v2/api-keys": listed({"id": 1, "name": "ci", "masked_value": SECRET}),
    "/v2/inference-backends": listed({"backend_name": "vLLM", "is_built_in": True}, {"backend_name": "Own"}),
    "/v2/workers": listed({"id": 1, "name": "node-a"}),
}


def _tables(*, second: bool) -> tuple[sa.MetaData, dict[str, list[dict[str, Any]]]]:
    """The tables of GPUStack 0.7, or of 2.x, as far as they matter, and rows of them."""
    tables = sa.MetaData()
    sources = ("huggingface_repo_id", "huggingface_filename", "ollama_library_model_name", "local_path")
    texts = ("name", "source", "placement_strategy", "backend", "backend_version", *sources)
    jsons = ("meta", "categories", "worker_selector", "gpu_selector", "backend_parameters", "env")
    switches = ("embedding_only", "cpu_offloading", "restart_on_error", "distributable")
    more = ("access_policy", "image_name") if second else ()

    def table(name: str, *columns: sa.Column[Any]) -> None:
        sa.Table(name, tables, sa.Column("id", sa.Integer, primary_key=True), *columns)

    def text(*names: str) -> list[sa.Column[Any]]:
        return [sa.Column(name, sa.String(255)) for name in names]

    table(
        "models",
        *text(*texts, *more),
        *(sa.Column(name, sa.JSON) for name in jsons),
        *(sa.Column(name, sa.Boolean) for name in switches),
        *(sa.Column(name, sa.Integer) for name in ("replicas", "cluster_id")),
        *(sa.Column(name, sa.DateTime) for name in ("created_at", "updated_at", "deleted_at")),
    )
    table("users", *text("username", "hashed_password"), sa.Column("principal_id", sa.Integer))
    table("api_keys", *text("name", "access_key", "hashed_secret_key"))
    table("workers", *text("name", "token"))
    model = {
        "id": 1,
        "name": "qwen",
        "source": "HUGGING_FACE",
        "huggingface_repo_id": "Qwen/Qwen3-4B-GGUF",
        "huggingface_filename": "*Q4_K_M*.gguf",
        "meta": {},
        "categories": [],
        "embedding_only": True,
        "placement_strategy": "BINPACK",
        "cpu_offloading": True,
        "restart_on_error": False,
        "worker_selector": {"os": "linux"},
        "backend": "llama-box",
        "backend_parameters": ["--ctx-size=16384"],
        "env": {"A": "1"},
        "replicas": 2,
    }
    rows: dict[str, list[dict[str, Any]]] = {
        "models": [model, {**model, "id": 2, "name": "deleted", "deleted_at": datetime(2025, 1, 1)}],
        "users": [
            {"id": 1, "username": "admin", "hashed_password": SECRET, "principal_id": 101},
            {"id": 2, "username": "ann", "hashed_password": SECRET, "principal_id": 102},
        ],
        "api_keys": [{"id": 1, "name": "ci", "access_key": SECRET, "hashed_secret_key": SECRET}],
        "workers": [{"id": 1, "name": "node-a", "token": SECRET}],
    }
    if second:
        changed = {"backend": "llama.cpp", "cluster_id": 1, "image_name": "x", "access_policy": "AUTHED"}
        rows["models"] = [{**one, **changed} for one in rows["models"]]
        table("clusters", *text("registration_token"))
        table("model_routes", *text("name", "access_policy"), sa.Column("created_model_id", sa.Integer))
        links = (sa.Column(name, sa.Integer) for name in ("route_id", "principal_id"))
        sa.Table("model_route_principals", tables, *links)
        route = {"id": 7, "name": "qwen", "created_model_id": 1, "access_policy": "ALLOWED_PRINCIPALS"}
        rows["model_routes"] = [route]
        rows["model_route_principals"] = [{"route_id": 7, "principal_id": 102}]
    return tables, rows


def fill(url: str, *, second: bool) -> None:
    """Make the tables of GPUStack 0.7, or of 2.x, with rows, in an empty database."""
    engine = sa.create_engine(url)
    tables, rows = _tables(second=second)
    with engine.begin() as connection:
        tables.create_all(connection)
        for name, found in rows.items():
            for row in found:
                connection.execute(tables.tables[name].insert(), row)
    engine.dispose()


def gpustack_database(folder: Path, *, second: bool) -> Path:
    """A ``database.db`` of GPUStack 0.7, or of 2.x."""
    path = folder / ("two.db" if second else "database.db")
    fill(f"sqlite:///{path}", second=second)
    return path


LLAMA_SWAP = f"""
apiKeys: [{SECRET}]
macros:
  server: >
    /opt/llama/llama-server-ec9e --port ${{PORT}}
  ctx: 4096
groups: {{a: {{swap: true, members: [coder]}}}}
hooks: {{on_startup: {{preload: [coder]}}}}
models:
  coder:
    macros: {{ctx: 16384}}
    cmd: |
      # what it is for
      ${{server}} \\
      --model ${{env.MODELS}}/coder.gguf --ctx-size ${{ctx}} -ngl 99 --jinja --api-key {SECRET}
    env: ["CUDA_VISIBLE_DEVICES=0", "GGML_X=1", "HF_TOKEN={SECRET}"]
    aliases: [gpt-4o-mini]
    ttl: 60
    concurrencyLimit: 4
  hub: {{cmd: "llama-server -hf unsloth/Qwen3-4B-GGUF:Q5_K_M --port ${{PORT}}"}}
  vl: {{cmd: "vllm serve Qwen/Qwen3-8B --port ${{PORT}} --max-model-len 4096"}}
  python: {{cmd: "/opt/vllm/bin/python3 -m vllm.entrypoints.openai.api_server --model=Qwen/Qwen3-8B --port ${{PORT}}"}}
  windows: {{cmd: 'C:\\llama\\llama-server.exe --port ${{PORT}} -m C:\\a.gguf'}}
  router: {{cmd: "llama-server --port ${{PORT}}"}}
  docker: {{cmd: "docker run --rm -p ${{PORT}}:8000 vllm/vllm-openai --model Qwen/Qwen3-8B"}}
  other: {{cmd: "/usr/bin/tei --port ${{PORT}} --prefix 'a b'", checkEndpoint: /healthz}}
  relative: {{cmd: "llama-server -m x.gguf --port ${{PORT}}"}}
  endless: {{macros: {{a: "${{b}}${{b}}", b: "${{a}}${{a}}"}}, cmd: "x ${{a}}"}}
  secret: {{cmd: "x --port ${{PORT}} ${{env.MY_TOKEN}}"}}
  fixed: {{cmd: docker run -p 9000:80 image}}
  empty: {{}}
"""

LITELLM = f"""
model_list:
  - model_name: local
    litellm_params: {{model: ollama_chat/llama3.2, api_base: http://host:11434}}
  - model_name: local
    litellm_params: {{model: ollama_chat/llama3.2, api_base: http://other:11434}}
  - model_name: gpt
    litellm_params: {{model: openai/gpt-5, api_key: {SECRET}}}
  - model_name: theirs
    litellm_params: {{model: openai/some/model, api_base: http://gpu2:8000/v1, api_key: {SECRET}}}
  - model_name: vl
    litellm_params: {{model: hosted_vllm/Qwen/Qwen3-8B, api_base: http://gpu1:8000/v1, rpm: 60}}
  - model_name: hub
    litellm_params: {{model: "ollama/hf.co/bartowski/Qwen3-4B-GGUF:Q5_K_M"}}
    model_info: {{mode: embedding}}
  - {{model_name: "*", litellm_params: {{model: "ollama/*"}}}}
  - bare
general_settings: {{master_key: {SECRET}}}
"""
