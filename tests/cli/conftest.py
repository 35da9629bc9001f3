"""A hub on loopback and a daemon that fetches from it, for the commands of one file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.shell import Shell
from tests.daemon import daemon
from tests.fakes.hub import Hub, running_hub
from tests.fakes.modelscope import ModelScopeSite, running_modelscope


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as one:
        yield one


@pytest.fixture(scope="module")
def modelscope() -> Iterator[ModelScopeSite]:
    with running_modelscope() as one:
        yield one


@pytest.fixture(scope="module")
def shell(hub: Hub, modelscope: ModelScopeSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("shell")
    with daemon(folder / "data", env={"HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": modelscope.url}) as one:
        yield Shell(one, folder)
