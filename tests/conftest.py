"""Fixtures every test may ask for: small real models, and the stand-ins of `tests/fakes/`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import ports
from tests.at_once import AtOnce
from tests.browser import Visitor, running_browser
from tests.databases import Server, running
from tests.fakes.hub import Hub, running_hub
from tests.fakes.nvml import FakeNvml, build_nvml
from tests.fakes.running import RunningEngine, running_engine
from tests.models import make_embedder, make_tiny_llm
from tests.order import longest_first


@pytest.hookimpl(trylast=True)  # the terminal reporter comes first
def pytest_configure(config: pytest.Config) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(AtOnce(reporter))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of several processes
        items[:] = longest_first(items)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model of 3 MB that answers "Hello! I am a tiny model served by this cluster."; don't alter it."""
    return make_tiny_llm(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="session")
def embedder_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedding model of 0.3 MB; don't alter it."""
    return make_embedder(tmp_path_factory.mktemp("models") / "embedder.gguf")


@pytest.fixture
def free_port() -> int:
    """A loopback port nobody listens on. Prefer port 0 where you can."""
    return ports.free_port()


@pytest.fixture
def fake_engine(tmp_path: Path) -> Iterator[Callable[..., RunningEngine]]:
    """Start a fake engine process: ``fake_engine("--reply", "I am two.")``; ended with the test."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, port: int = 0) -> RunningEngine:
            return stack.enter_context(
                running_engine(*arguments, port=port, log=tmp_path / "fake-engine.log")
            )

        yield start


@pytest.fixture
def hub() -> Iterator[Hub]:
    """An empty model hub on loopback: ``hub.add("me/model", {...})``, then use ``hub.url`` as HF_ENDPOINT."""
    with running_hub() as running:
        yield running


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake NVML library, compiled once."""
    return build_nvml(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def nvml(nvml_library: Path, tmp_path: Path) -> FakeNvml:
    """NVIDIA cards for child processes started with ``nvml.env``: ``nvml.tell(cards(2))``. None at first."""
    fake = FakeNvml(library=nvml_library, script=tmp_path / "nvml.txt")
    fake.tell([])
    return fake


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[str], Server]]:
    """The database server of a kind, ``servers("mysql")``: started when first asked for, and the same ever after."""
    with contextlib.ExitStack() as stack:
        started: dict[str, Server] = {}

        def server(kind: str) -> Server:
            if kind not in started:
                started[kind] = stack.enter_context(running(kind))
            return started[kind]

        yield server


@pytest.fixture
def visitors(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Visitor]]:
    """People at browsers: ``visitors("ada").page`` is a page of a real, headless browser; what they do is recorded."""
    with running_browser(tmp_path / "browser", request.node.nodeid) as made:
        yield made
