"""The catalog: read with every fault named, expanded into deployments, and never lost to a bad file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from gpustack.errors import Invalid
from gpustack.server.catalog import BUILT_IN, Catalog
from gpustack.server.catalog_file import read_catalog

ONE = b"""
.shared: &shared
  source: huggingface
  backend: llama-box
  backend_parameters: ["--alias={size}-{quantization}", "--chat-template-file={data_dir}/x.jinja"]
model_sets:
- name: Second
  release_date: 2025-01-01
  sizes: [1, 0.5]
  quantizations: [Q4, Q8]
  templates:
  - <<: *shared
    huggingface_repo_id: me/second-{size}B
  - source: huggingface
    huggingface_repo_id: me/big
    sizes: [70]
    quantizations: [Q2]
- name: First
  order: 1
- name: Newer
  release_date: "2025-02-01"
"""


def test_sets_come_in_their_order_and_are_numbered() -> None:
    found = read_catalog(ONE)
    assert [(one.id, one.name) for one in found] == [(1, "First"), (2, "Newer"), (3, "Second")]
    assert found[2].release_date == "2025-01-01"


def test_a_template_makes_a_deployment_for_every_size_and_quantization() -> None:
    specs = read_catalog(ONE)[2].specs
    assert [(spec.size, spec.quantization) for spec in specs] == [
        (1.0, "Q4"),
        (1.0, "Q8"),
        (0.5, "Q4"),
        (0.5, "Q8"),
        (70.0, "Q2"),
    ]
    assert specs[0].fields["huggingface_repo_id"] == "me/second-1B"
    assert specs[3].fields["backend_parameters"] == [
        "--alias=0.5-Q8",
        "--chat-template-file={data_dir}/x.jinja",
    ]


def test_every_fault_of_a_catalog_is_named() -> None:
    with pytest.raises(Invalid) as caught:
        read_catalog(
            b"- 1\n- home: x\n- name: a\n  sizes: [big]\n  templates: [{size: 1}]\n- name: b\n  icon: [1]\n"
        )
    assert list(caught.value.faults) == [
        "model set 1 must be an object",
        "model set 2 has no name",
        "model set 'a': sizes must be a list of numbers (billions of parameters)",
        "model set 'a': template 1 must be an object with a source",
        "model set 'b': icon must be text of at most 16384 characters",
    ]


def nested(levels: int) -> bytes:
    """A YAML that would be enormous were its anchors followed everywhere."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for n in range(1, levels):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]")
    lines.append(f"model_sets: [{{name: a, templates: [{{source: huggingface, env: *a{levels - 1}}}]}}]")
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"\xff\xfe\x00",
        b"",
        b"text",
        b"model_sets: 3",
        b"[" * 5000,
        b"- !!python/object/apply:os.system ['true']",
        b"- name: a\n  sizes: [.nan]",
        b"- name: a\n  sizes: [-1]",
        b"- name: a\n  templates: [{source: huggingface, replicas: 2025-01-01}]",
        b"- name: a\n  sizes: [" + b"1, " * 100 + b"1]\n  quantizations: [" + b"q, " * 100 + b"q]\n"
        b"  templates: [{source: huggingface}]",
        nested(9),
    ],
)
def test_what_is_no_catalog_is_refused(raw: bytes) -> None:
    with pytest.raises(Invalid):
        read_catalog(raw)


def test_the_built_in_catalog_names_the_source_of_each_model() -> None:
    found = read_catalog(BUILT_IN.read_bytes())
    assert len(found) >= 10
    for one in found:
        assert one.home and one.home.startswith("https://huggingface.co/"), one.name
        assert one.licenses and one.release_date and one.sizes and one.categories, one.name
        assert one.specs, one.name
        for spec in one.specs:
            assert "/" in spec.fields["huggingface_repo_id"] and "{size" not in repr(spec.fields), one.name
            assert spec.fields["huggingface_filename"].endswith(".gguf"), one.name
            assert spec.fields["categories"] == list(one.categories), one.name


@asynccontextmanager
async def running(catalog: Catalog) -> AsyncIterator[Catalog]:
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: catalog.run(task_status=task_status))
        yield catalog
        nursery.cancel_scope.cancel()


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not holds():  # noqa: ASYNC110  # the log and the file tell nobody
            await trio.sleep(0.01)


@pytest.mark.parametrize("spelling", [str, Path.as_uri])
async def test_a_file_takes_the_place_of_the_built_in_catalog(
    tmp_path: Path, spelling: Callable[[Path], str]
) -> None:
    file = tmp_path / "my catalog.yaml"
    file.write_bytes(ONE)
    async with running(Catalog(spelling(file))) as catalog:
        await until(lambda: "my" in catalog.origin)
        assert [one.name for one in await catalog.sets()] == ["First", "Newer", "Second"]
        defaults = await catalog.defaults_for("ME/big")
        assert defaults is not None and defaults["source"] == "huggingface"


async def test_the_built_in_catalog_is_read_when_somebody_asks() -> None:
    async with running(Catalog()) as catalog:
        assert repr(catalog) == "<Catalog: 0 model sets, not read yet>"
        assert len(await catalog.sets()) >= 10
        assert await catalog.defaults_for("nobody/nothing") is None


async def test_a_bad_file_is_named_in_the_log_and_the_built_in_catalog_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "catalog.yaml"
    file.write_bytes(b"- home: nowhere")
    async with running(Catalog(str(file), again_after=0.01)) as catalog:
        await until(lambda: "has no name" in caplog.text)
        assert catalog.origin == "built in" and len(await catalog.sets()) >= 10
        file.write_bytes(ONE)
        await until(lambda: catalog.origin == str(file))
        assert len(await catalog.sets()) == 3


@pytest.mark.parametrize("source", ["/nonexistent/catalog.yaml", "ftp://example.com/x", "/dev/zero", "/tmp"])
async def test_what_cannot_be_read_leaves_the_built_in_catalog(
    source: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(Catalog(source)) as catalog:
        await until(lambda: "cannot be used" in caplog.text)
        assert catalog.origin == "built in"
