"""``gpustack wait``: when a condition holds, what is in the way, and what can never come to hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gpustack.cli.awaited import CONDITIONS, Outlook, subject_named
from gpustack.cli.fetching import progress
from gpustack.errors import BadRequest, Conflict, GpustackError, NotFound
from gpustack.remote.admin_client import AdminClient


class Cluster:
    """Answers lists and single documents out of what it holds."""

    def __init__(self, **lists: list[dict[str, Any]]) -> None:
        self.lists = {
            f"/v1/{name.replace('_', '-')}": [{"id": number, **one} for number, one in enumerate(items, 1)]
            for name, items in lists.items()
        }
        self.final = False

    async def all(self, path: str, search: str = "", **filters: Any) -> list[dict[str, Any]]:
        every = self.lists.get(path, [])
        return [one for one in every if all(one.get(name) == value for name, value in filters.items())]

    async def get(self, path: str) -> dict[str, Any]:
        if path.endswith("/explain"):
            return {"final": self.final, "sentence": "No worker has a GPU."}
        place, _, key = path.rpartition("/")
        found = [one for one in self.lists.get(place, []) if str(one["id"]) == key]
        if not found:
            raise NotFound(path)
        return found[0]


def model(replicas: int = 2, ready: int = 0, **more: Any) -> dict[str, Any]:
    return {"name": "m", "replicas": replicas, "ready_replicas": ready, **more}


def instance(name: str, state: str = "running", on: int | None = 1, **more: Any) -> dict[str, Any]:
    return {"name": name, "model_id": 1, "model_name": "m", "state": state, "worker_id": on, **more}


def worker(name: str = "a", **more: Any) -> dict[str, Any]:
    return {"name": name, "state": "ready", **more}


async def outlook(cluster: Cluster, name: str, wanted: str) -> Outlook:
    client: AdminClient = cluster  # type: ignore[assignment]
    return await (await subject_named(client, name, wanted)).look(client)


async def refused(cluster: Cluster, name: str, wanted: str, kind: type[GpustackError] = Conflict) -> str:
    with pytest.raises(kind) as caught:
        await outlook(cluster, name, wanted)
    return str(caught.value)


async def test_a_model_is_ready_when_all_its_replicas_serve() -> None:
    waits = instance("m-2", "pending", None, state_message="short by\n2 GiB")
    cluster = Cluster(models=[model(ready=1)], model_instances=[instance("m-1"), waits])
    found = await outlook(cluster, "m", "ready")
    assert not found.holds
    assert found.why == "1 of 2 replicas serve; m-2: it is pending (short by 2 GiB)"
    found = await outlook(cluster, "m", "scheduled")
    assert found.why.startswith("1 of 2 replicas have a place; m-2:")
    cluster.final = True
    assert await refused(cluster, "m", "ready") == "m-2 cannot run here: No worker has a GPU."
    assert (await outlook(Cluster(models=[model(ready=2)]), "m", "ready")).holds
    assert "m is stopped" in await refused(Cluster(models=[model(replicas=0)]), "m", "ready")


async def test_one_that_failed_is_waited_for_only_if_it_is_started_again() -> None:
    failed = instance("m-1", "error", state_message="exit code 1")
    cluster = Cluster(model_instances=[failed])
    assert await refused(cluster, "m-1", "ready") == "m-1 failed: exit code 1"
    cluster = Cluster(model_instances=[{**failed, "next_retry_at": "2999-01-01T00:00:00Z"}])
    assert not (await outlook(cluster, "m-1", "ready")).holds
    cluster = Cluster(model_instances=[instance("m-1", deleted_at="2026-01-01T00:00:00Z")])
    assert await refused(cluster, "m-1", "ready") == "m-1 is being removed"


async def test_a_worker_is_drained_when_no_member_of_anything_is_left_there() -> None:
    share = {"subordinate_workers": [{"worker_id": 1}]}
    gang = instance("g-1", on=2, distributed_servers=share)
    cluster = Cluster(workers=[worker(draining=True)], model_instances=[gang])
    assert (await outlook(cluster, "a", "drained")) == Outlook(False, "g-1 is still there")
    assert (await outlook(Cluster(workers=[worker(draining=True)]), "a", "drained")).holds
    assert "workers drain a" in await refused(Cluster(workers=[worker()]), "a", "drained")
    silent = Cluster(workers=[worker(state="not_ready", state_message="no heartbeat")])
    assert (await outlook(silent, "a", "ready")).why == "it is not_ready: no heartbeat"
    assert "barred" in await refused(Cluster(workers=[worker(barred=True)]), "a", "ready")


async def test_a_model_is_gone_with_its_last_instance_and_an_unknown_name_is_gone() -> None:
    cluster = Cluster(models=[model()], model_instances=[instance("m-1")])
    client: AdminClient = cluster  # type: ignore[assignment]
    subject = await subject_named(client, "m", "gone")
    assert (await subject.look(client)).why == "it is still there"
    cluster.lists["/v1/models"] = []
    assert await subject.look(client) == Outlook(False, "m-1 is still there")
    cluster.lists["/v1/model-instances"] = []
    assert (await subject.look(client)).holds and (await outlook(Cluster(), "m", "gone")).holds
    assert not (await outlook(Cluster(), "m", "created")).holds
    assert (await outlook(Cluster(workers=[worker("m")]), "m", "created")).holds


async def test_what_has_several_meanings_or_none_is_refused_at_once() -> None:
    both = Cluster(models=[model(ready=2)], workers=[worker("m")])
    assert "model/m, worker/m" in await refused(both, "m", "ready")
    assert (await outlook(both, "worker/m", "ready")).holds and (
        await outlook(both, "model/m", "ready")
    ).holds
    assert "is never scheduled" in await refused(both, "worker/m", "scheduled", BadRequest)
    assert "There is no model" in await refused(both, "nobody", "ready", NotFound)
    assert CONDITIONS == ("ready", "scheduled", "stopped", "drained", "gone", "created")


async def test_a_stopped_model_is_one_of_which_nothing_runs() -> None:
    left = Cluster(models=[model(replicas=0)], model_instances=[instance("m-1"), instance("m-2")])
    assert (await outlook(left, "m", "stopped")).why == "m-1, m-2 are still there"
    assert "wants 2" in await refused(Cluster(models=[model()]), "m", "stopped")


FILE: Mapping[str, Any] = {"worker_name": "a", "download_progress": 50.0, "download_speed": 1 << 20}


def test_workers_that_fetch_are_one_bar() -> None:
    told = progress([{**FILE, "download_eta": 90.0}, {**FILE, "worker_name": "b", "download_progress": None}])
    assert told.endswith(" 25 %, 2.0 MiB/s, 1:30 left  a, b") and told.count("█") == 8
    assert progress([{"worker_name": "a"}]).endswith("  0 %  a"), "nothing is known yet"


async def test_a_file_is_named_by_its_kind_and_number() -> None:
    file = {"state": "downloading", "download_progress": 41.7}
    found = await outlook(Cluster(model_files=[file]), "file/1", "ready")
    assert found == Outlook(False, "it is downloading 42%")
    failed = Cluster(model_files=[{"state": "error", "state_message": "no room"}])
    assert await refused(failed, "file/1", "ready") == "file/1 failed: no room"
