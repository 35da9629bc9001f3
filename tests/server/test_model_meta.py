"""What an engine tells of its model is asked once of each generation, and stands in the model's record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import pytest
import trio

from gpustack.domain.worker import Worker
from gpustack.errors import Unavailable
from gpustack.server import model_meta
from gpustack.server.model_meta import ModelMetaReader, meta_of

from .cluster import Cluster, Settled

VOICES = {"id": "speaker", "object": "model", "voices": ["de", "en-us"]}


@attrs.define
class Engines:
    """Engines by the name of their worker: the entry that they tell, or what is raised."""

    known: dict[str, Mapping[str, Any] | Exception]
    asked: list[str] = attrs.field(factory=list)
    thrice: trio.Event = attrs.field(factory=trio.Event)

    async def __call__(self, worker: Worker, port: int) -> Mapping[str, Any]:
        assert port == 40000
        self.asked.append(worker.name)
        if len(self.asked) == 3:
            self.thrice.set()
        told = self.known[worker.name]
        if isinstance(told, Exception):
            raise told
        return told


@pytest.fixture
def engines(cluster: Cluster, nursery: trio.Nursery) -> Engines:
    return Engines({"a": VOICES})


@pytest.fixture
async def reader(cluster: Cluster, engines: Engines, nursery: trio.Nursery) -> ModelMetaReader:
    made = ModelMetaReader(cluster.store, engines)
    await nursery.start(made.run)
    return made


async def test_what_a_running_engine_tells_is_kept(
    cluster: Cluster, engines: Engines, reader: ModelMetaReader
) -> None:
    model = await cluster.model("m", replicas=2)
    worker = await cluster.worker("a")
    await cluster.instance(model, on=worker)
    await cluster.until(lambda s: s.models[model.id].meta == {"voices": ["de", "en-us"]})
    await cluster.instance(model, on=worker)
    await Settled(cluster)()
    assert engines.asked == ["a"], "a second replica tells the same"


async def test_a_new_generation_is_asked_again(
    cluster: Cluster, engines: Engines, reader: ModelMetaReader
) -> None:
    model, worker = await cluster.model("m"), await cluster.worker("a")
    await cluster.instance(model, on=worker)
    await cluster.until(lambda s: s.models[model.id].meta)
    engines.known["a"] = {"id": "speaker", "max_model_len": 4096}
    model = await cluster.change(model, generation=2)
    await Settled(cluster)()
    assert len(engines.asked) == 1, "its old replica tells nothing of it"
    await cluster.instance(model, on=worker)
    await cluster.until(lambda s: s.models[model.id].meta == {"max_model_len": 4096})


async def test_an_engine_that_does_not_answer_is_asked_a_few_times(
    cluster: Cluster, engines: Engines, reader: ModelMetaReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_meta, "_TRY_AGAIN", 0.01)
    engines.known["a"] = Unavailable("it is silent")
    model, worker = await cluster.model("m"), await cluster.worker("a")
    await cluster.instance(model, on=worker)
    with trio.fail_after(30):
        await engines.thrice.wait()
    await Settled(cluster)()
    await trio.sleep(0.05)
    assert len(engines.asked) == 3
    assert cluster.now(model).meta == {}


async def test_an_engine_that_answers_nonsense_keeps_no_other_waiting(
    cluster: Cluster, engines: Engines, reader: ModelMetaReader, caplog: pytest.LogCaptureFixture
) -> None:
    engines.known["b"] = ValueError("nobody foresaw this")
    strange, model = await cluster.model("strange"), await cluster.model("m")
    await cluster.instance(strange, on=await cluster.worker("b"))
    await cluster.instance(model, on=await cluster.worker("a"))
    await cluster.until(lambda s: s.models[model.id].meta)
    assert "nobody foresaw" in caplog.text or "model meta" in caplog.text


def test_only_what_lists_of_models_show_is_kept_and_it_is_bounded() -> None:
    told = {"id": "m", "created": 7, "root": "/models/m", "voices": ["a"], "languages": None}
    assert meta_of(told) == {"voices": ["a"]}
    assert meta_of({"voices": ["a" * 1000] * 1000}) == {}
