"""A program written for the existing product's API works here unmodified: its calls, its fields, its words."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.daemon import WITHIN, Daemon, daemon

PASSWORD = "Right_2_come"
CREATED, UPDATED, DELETED = 1, 2, 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    options = ("--bootstrap-password", PASSWORD, "--force-auth-localhost")
    with daemon(tmp_path_factory.mktemp("compatible") / "data", *options) as one:
        yield one


@pytest.fixture(scope="module")
def client(server: Daemon) -> Iterator[httpx.Client]:
    """Signed in by the form, as the existing console is; then with a key, as programs are."""
    with httpx.Client(base_url=server.url, timeout=WITHIN, follow_redirects=True) as browser:
        assert browser.get("/auth-config").json() == {}
        answer = browser.post("/auth/login", data={"username": "admin", "password": PASSWORD})
        assert answer.status_code == 200 and "gpustack_session" in browser.cookies
        assert browser.get("/v1/users/me").json()["is_admin"] is True
        body = {"name": "of a program", "description": "", "expires_in": 0}
        key = browser.post("/v1/api-keys", json=body).json()["value"]
        assert browser.post("/auth/logout", headers={"Origin": server.url}).status_code == 200
    with httpx.Client(base_url=server.url, timeout=WITHIN, headers={"Authorization": f"Bearer {key}"}) as one:
        yield one


class Watched:
    """Events as the existing client reads them: a line is an event, an empty one a sign of life."""

    def __init__(self, client: httpx.Client, path: str, **params: Any) -> None:
        self._client, self._path, self._params = client, path, params
        self._events: queue.Queue[tuple[int, dict[str, Any]] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self.seen: list[tuple[int, dict[str, Any]]] = []

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        pass  # a daemon thread: the stream ends with its server

    def _read(self) -> None:
        try:
            with self._client.stream("GET", self._path, params={"watch": "true", **self._params}) as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                for line in answer.iter_lines():
                    if line:
                        event = json.loads(line)
                        self._events.put((event["type"], event["data"]))
        except httpx.HTTPError:
            pass
        self._events.put(None)

    def until(self, kind: int, **fields: Any) -> dict[str, Any]:
        """The next event of a kind whose object has these values."""
        while True:
            try:
                event = self._events.get(timeout=WITHIN)
            except queue.Empty:
                raise AssertionError(f"never came: {kind} {fields}; came: {self.seen[-5:]}") from None
            assert event is not None, f"the stream ended before {kind} {fields}"
            self.seen.append(event)
            if event[0] == kind and all(event[1].get(name) == value for name, value in fields.items()):
                return event[1]


def model_body(path: Path) -> dict[str, Any]:
    """All that the existing product's form sends."""
    return {
        "name": "tiny",
        "description": None,
        "source": "local_path",
        "local_path": str(path),
        "huggingface_repo_id": None,
        "huggingface_filename": None,
        "model_scope_model_id": None,
        "ollama_library_model_name": None,
        "meta": {},
        "replicas": 1,
        "ready_replicas": 0,
        "categories": ["llm"],
        "embedding_only": False,
        "image_only": False,
        "reranker": False,
        "speech_to_text": False,
        "text_to_speech": False,
        "placement_strategy": "spread",
        "cpu_offloading": True,
        "distributed_inference_across_workers": True,
        "worker_selector": {},
        "gpu_selector": None,
        "backend": "llama-box",
        "backend_version": None,
        "backend_parameters": ["--ctx-size=512"],
        "env": {},
        "restart_on_error": True,
        "distributable": False,
    }


def page(client: httpx.Client, path: str, **params: Any) -> list[dict[str, Any]]:
    answer = client.get(path, params={"page": 1, "perPage": 100, **params})
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["pagination"].keys() == {"page", "perPage", "total", "totalPage"}
    items: list[dict[str, Any]] = document["items"]
    assert document["pagination"]["total"] == len(items)
    return items


def test_a_deployment_lives_its_whole_life(server: Daemon, client: httpx.Client, tiny_model: Path) -> None:
    server.until(lambda: [w for w in page(client, "/v1/workers") if w["state"] == "ready"], "a ready worker")
    spec = model_body(tiny_model)

    def weighed() -> dict[str, Any] | None:
        """Not while its worker is still finding out which engines it has."""
        found = client.post("/v1/model-evaluations", json={"model_specs": [spec]}).json()["results"][0]
        return found if found["compatible"] else None

    assert server.until(weighed, "a verdict that it fits")["resource_claim"]["ram"] > 0

    with Watched(client, "/v1/models") as models, Watched(client, "/v1/model-instances") as instances:
        created = client.post("/v1/models", json=spec)
        assert created.status_code == 200, created.text
        model = created.json()
        assert {name: model[name] for name in spec if name not in ("meta", "ready_replicas")} == {
            name: value for name, value in spec.items() if name not in ("meta", "ready_replicas")
        }
        models.until(CREATED, id=model["id"])
        instances.until(CREATED, model_id=model["id"], model_name="tiny")
        instance = instances.until(UPDATED, model_id=model["id"], state="running")
        models.until(UPDATED, id=model["id"], ready_replicas=1)
        worker = page(client, "/v1/workers", name=instance["worker_name"])[0]
        assert (instance["worker_id"], instance["worker_ip"]) == (worker["id"], worker["ip"])
        assert instance["port"] in instance["ports"] and instance["pid"] > 0
        assert instance["computed_resource_claim"]["ram"] > 0

        listed = page(client, "/v1/model-instances", model_id=model["id"], state="running")
        assert [one["id"] for one in listed] == [instance["id"]]
        assert [one["id"] for one in page(client, f"/v1/models/{model['id']}/instances")] == [instance["id"]]
        assert page(client, "/v1/model-instances", worker_id=10**6) == []

        log = client.get(f"/v1/model-instances/{instance['id']}/logs", params={"tail": 20, "follow": "false"})
        assert log.status_code == 200 and log.headers["content-type"].startswith("text/plain") and log.text

        ids = [one["id"] for one in client.get("/v1-openai/models").json()["data"]]
        assert ids == ["tiny"]
        said = client.post(
            "/v1-openai/chat/completions",
            json={"model": "tiny", "messages": [{"role": "user", "content": "Who are you?"}]},
        ).json()
        assert said["choices"][0]["message"]["content"] and said["usage"]["completion_tokens"] > 0

        # The console stops a deployment by sending back all it has of it.
        current = client.get(f"/v1/models/{model['id']}").json()
        stopped = client.put(f"/v1/models/{model['id']}", json={**current, "replicas": 0})
        assert stopped.status_code == 200 and stopped.json()["replicas"] == 0
        assert instances.until(DELETED, id=instance["id"])["name"] == instance["name"]
        models.until(UPDATED, id=model["id"], ready_replicas=0)

        deleted = client.delete(f"/v1/models/{model['id']}")
        assert (deleted.status_code, deleted.json()) == (200, None)
        models.until(DELETED, id=model["id"])
    assert client.get(f"/v1/models/{model['id']}").status_code == 404

    def used() -> int:
        rows = client.get("/v1/dashboard/usage", params={"model_ids": model["id"]}).json()["items"]
        return sum(row["completion_token_count"] for row in rows)

    server.until(lambda: used() == said["usage"]["completion_tokens"], "the usage of a model that is gone")


def test_what_the_console_shows_is_there(server: Daemon, client: httpx.Client) -> None:
    shown = client.get("/v1/dashboard").json()
    assert shown["resource_counts"].keys() == {
        "worker_count",
        "gpu_count",
        "model_count",
        "model_instance_count",
    }
    assert shown["system_load"]["current"].keys() == shown["system_load"]["history"].keys()
    assert {"model_usage", "active_models"} < shown.keys()
    stats = client.get(
        "/v1/dashboard/usage/stats", params={"start_date": "2020-01-01", "end_date": "2020-02-01"}
    )
    assert stats.json() == {
        "api_request_history": [],
        "prompt_token_history": [],
        "completion_token_history": [],
    }
    assert isinstance(page(client, "/v1/gpu-devices"), list)
    assert isinstance(page(client, "/v1/model-files"), list)
    assert [one["username"] for one in page(client, "/v1/users", search="ADM")] == ["admin"]
    assert [one["name"] for one in page(client, "/v1/api-keys")] == ["of a program"]
    sets = page(client, "/v1/model-sets", search="qwen3", categories="llm")
    assert page(client, f"/v1/model-sets/{sets[0]['id']}/specs")[0]["source"] == "huggingface"
    assert client.get("/version").json().keys() == {"version", "git_commit"}
    assert client.get("/update/").json()["latest_version"]
    assert client.get("/debug/log_level").json() in ("debug", "info")
    assert client.put("/debug/log_level", content="info").json() == "ok"


def test_errors_have_the_form_of_their_route(server: Daemon, client: httpx.Client) -> None:
    missing = client.get("/v1/models/4711")
    assert missing.status_code == 404
    assert missing.json().keys() == {"code", "reason", "message", "error"}
    assert missing.json()["reason"] == "NotFound"
    unknown = client.post("/v1-openai/chat/completions", json={"model": "none", "messages": []})
    assert unknown.status_code == 404
    assert unknown.json()["error"].keys() >= {"message", "code", "type"}
    for path in ("/v1/models", "/v1/dashboard", "/proxy?url=https://huggingface.co/", "/debug/log_level"):
        answer = httpx.get(server.url + path, timeout=WITHIN)
        assert answer.status_code == 401
        assert answer.json()["message"] == "Invalid authentication credentials"
    refused = client.post("/v1/models", json={"name": "x", "source": "huggingface"})
    assert (refused.status_code, refused.json()["reason"]) == (422, "Invalid")
