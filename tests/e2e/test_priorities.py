"""One of higher priority gets a place for real: what makes room finishes its answer, and comes back afterwards."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from tests.daemon import Daemon, daemon

ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "Who are you?"}]}
LONG: dict[str, Any] = {"stream": True, "ignore_eos": True, "max_tokens": 400}


def deploy(one: Daemon, model: Path, name: str, claim: int, **more: Any) -> int:
    body = {"name": name, "source": "local_path", "local_path": str(model), **more}
    body["env"] = {"GPUSTACK_MODEL_RAM_CLAIM": str(claim)}
    status, answer = one.call("POST", "/v1/models", body)
    assert status == 200, answer
    return int(answer["id"])


def measured(one: Daemon) -> list[dict[str, Any]]:
    found = one.call("GET", "/v1/workers")[1]["items"]
    return [worker for worker in found if "total" in worker["status"]["memory"]]


def explained(one: Daemon, instance: dict[str, Any]) -> dict[str, Any]:
    status, told = one.call("GET", f"/v1/model-instances/{instance['id']}/explain")
    assert status == 200, told
    return dict(told)


def test_what_makes_room_finishes_its_answer_and_comes_back(tmp_path: Path, tiny_model: Path) -> None:
    with daemon(tmp_path / "data") as one:
        (worker,) = one.until(lambda: measured(one), "what the worker has measured")
        room = worker["status"]["memory"]["total"] - worker["system_reserved"]["ram"]
        most = int(room * 0.6)
        deploy(one, tiny_model, "low", most)
        (victim,) = one.running("low")
        request = urllib.request.Request(
            f"{one.url}/v1/chat/completions",
            data=json.dumps({"model": "low", **ASK, **LONG}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.readline().startswith(b"data:")
            high = deploy(one, tiny_model, "high", most, priority=100, preempts=True)
            one.until(lambda: [i for i in one.instances("low") if i["deleted_at"]], "the end of the other")
            rest = answer.read()
        assert rest.rstrip().endswith(b"data: [DONE]")
        (placed,) = one.running("high")
        (waits,) = one.until(
            lambda: [i for i in one.instances("low") if i["id"] != victim["id"] and i["state_message"]],
            "the one that waits for another place",
        )
        assert waits["state_message"].startswith("Made room for model high (priority 100). Needs ")
        assert "Instances end for one of higher priority" in one.log
        assert explained(one, placed)["fits"]
        # Its worker is the only one: a drain would find no other place for it, and that is told beforehand.
        plan = one.call("GET", f"/v1/workers/{worker['id']}/drain-plan")[1]
        assert [(step["instance"], step["way"]) for step in plan["steps"]] == [(placed["name"], "stays")]
        assert "is being drained" in plan["steps"][0]["why"]
        assert one.call("PUT", f"/v1/workers/{worker['id']}", {"draining": True})[0] == 200
        shown = one.call("GET", f"/v1/workers/{worker['id']}")[1]["drain"]
        assert (shown["of"], shown["left"]) == (1, [placed["name"]])
        assert one.call("PUT", f"/v1/workers/{worker['id']}", {"cordoned": False})[0] == 200
        assert one.call("GET", f"/v1/workers/{worker['id']}")[1]["drain"] is None
        assert one.call("DELETE", f"/v1/models/{high}")[0] == 200
        one.running("low")
