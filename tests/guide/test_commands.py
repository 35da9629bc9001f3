"""The commands of the guide do what it says: they are run as they stand there, page by page."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import attrs
import pytest

from docs.guide.build import ROOT
from gpustack.cli.command_line import read
from gpustack.cli.common_option import read_common
from gpustack.cli.failure import UsageError
from gpustack.cli.main import names
from gpustack.config.option import table
from gpustack.config.options import Options
from tests.cli.document import module_of
from tests.daemon import WITHIN, Daemon, daemon
from tests.fakes.hub import Hub, running_hub
from tests.guide.blocks import Block, blocks_of, pages
from tests.models.tiny_lora import make_tiny_lora
from tests.ports import free_ports
from tests.test_house import tracked

GUIDE = ROOT / "docs" / "guide"
LONGEST = 540.0
"""Seconds that the blocks of one page may take; pytest ends a test after ten minutes."""

INSTALL = GUIDE / "install.md"
"""What is slow of it needs a checkout of its own."""

BEFORE = {
    "moving.md": "gpustack run ./tiny.gguf --name kept -d",
    "troubleshooting.md": """curl -sS http://127.0.0.1:8080/v1/models -H 'Content-Type: application/json' -d '
        {"name": "nowhere", "source": "local_path", "local_path": "'$PWD'/tiny.gguf",
        "worker_selector": {"rack": "moon"}}'
        until gpustack explain nowhere | grep -q moon; do sleep 1; done""",
    "manifests.md": "gpustack run ./tiny.gguf --name qwen -d; gpustack scale qwen 2",
    "plan.md": """gpustack run ./tiny.gguf --name now -d
        gpustack export Model/now | sed 's/name: now/name: planned/' > model.yaml""",
    "v2.md": "export GPUSTACK_SERVER_URL=http://127.0.0.1:8080 GPUSTACK_API_KEY=$(gpustack keys create scripts)",
    "priorities.md": "cp tiny.gguf llama.gguf",
}
"""What a page takes for granted, of models and files."""


@cache
def every_block() -> tuple[Block, ...]:
    return tuple(block for page in pages() for block in blocks_of(page))


def test_every_command_block_says_whether_it_is_run_or_why_not() -> None:
    faults = [f"{block.place}: {fault}" for block in every_block() if (fault := block.fault())]
    assert not faults, "\n".join(faults)
    assert sum(block.is_run for block in every_block()) > 20


def test_every_call_of_gpustack_is_one_that_the_program_understands() -> None:
    """Whether the block is run or not: commands, options and their order are read by the program itself."""
    flags = {option.flag for option in table(Options)} | {"-s", "-t", "-d", "--help"}
    faults, calls = [], 0
    for block in every_block():
        for words in block.command_lines():
            calls += 1
            name, rest = words[0], words[1:]
            if name not in names():
                faults.append(f"{block.place}: there is no command {name}")
            elif name in ("start", "config"):
                unknown = {word.split("=")[0] for word in rest if word.startswith("-")} - flags - {"--format"}
                faults += [f"{block.place}: {name} has no {word}" for word in unknown]
            elif "--help" not in rest:
                try:
                    read(module_of(name).__doc__, name, read_common(name, rest, {}).argv)
                except UsageError as error:
                    faults.append(f"{block.place}: {error}")
    assert calls > 60
    assert not faults, "\n".join(faults)


def test_options_and_commands_that_the_text_names_are_there() -> None:
    flags = {option.flag for option in table(Options) if option.flag}
    variables = {option.env for option in table(Options)}
    faults = []
    for page in sorted(GUIDE.rglob("*.md")):
        text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for code in re.findall(r"`([^`\n]+)`", text):
            where = f"{page.relative_to(ROOT)}: {code}"
            if found := re.match(r"gpustack ([a-z-]+)", code):
                helped = {found[1]} <= set(names())
                told = (module_of(found[1]).__doc__ or "") if helped else ""
                known = told + " ".join([*flags, "--format"]) if found[1] in ("start", "config") else told
                faults += [] if helped else [where]
                own, _, of_start = code.partition(" -- ")
                faults += [where for word in re.findall(r"--[\w-]+", own) if word not in known]
                faults += [where for word in re.findall(r"--[\w-]+", of_start) if word not in flags]
            elif re.fullmatch(r"GPUSTACK_[A-Z_]+", code) and code not in variables:
                faults += [where] if code not in (ROOT / "docs" / "options.md").read_text() else []
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("page", sorted((GUIDE / "zh").glob("*.md")), ids=lambda page: page.stem)
def test_a_translation_has_the_commands_of_its_original(page: Path) -> None:
    original = GUIDE / page.name if (GUIDE / page.name).exists() else ROOT / "docs" / page.name
    commands = lambda path: [  # noqa: E731
        (block.language, re.sub(r'"[^"]*"', '"…"', block.text)) for block in blocks_of(path) if block.marker
    ]
    assert commands(page) == commands(original)


@attrs.frozen
class Reader:
    """Somebody who reads pages from top to bottom and types what they say, at the machine of a daemon."""

    daemon: Daemon
    home: Path
    hub: Hub
    ports: dict[str, str]
    """The ports of the daemon, as the environment says them: `gpustack doctor` looks at these."""

    def follow(self, blocks: Sequence[Block], within: float = WITHIN, cwd: Path | None = None) -> None:
        """Run the blocks of a page one after the other in one shell, at home or in ``cwd``.

        Fails with what the first bad one said.
        """
        before = BEFORE.get(blocks[0].page.name, "")
        parts = ["set -eu", "echo '@@ before' >&2", before.replace("http://127.0.0.1:8080", self.daemon.url)]
        parts.append("echo")  # what was printed may end within a line
        for number, block in enumerate(blocks):
            if block.is_shown:
                continue
            text = re.sub(r"http://127\.0\.0\.1:8080", self.daemon.url, block.text)
            parts.append(f"echo '@@ {block.place}' | tee /dev/stderr")
            if block.language == "python":
                program = self.home / f"block-{number}.py"
                program.write_text(text)
                parts.append(f"{sys.executable} {program}")
            else:
                parts.append(text)
        script = self.home / "page.sh"
        script.write_text("\n".join(parts))
        ran = subprocess.run(
            ["bash", str(script)], stdin=subprocess.DEVNULL, cwd=cwd or self.home, env=self.env(), capture_output=True,
            text=True, timeout=within, check=False,
        )  # fmt: skip
        at = re.findall(r"@@ (\S+)", ran.stderr)[-1]
        said = f"{at} ended with {ran.returncode}\n{ran.stderr[-3000:]}\n{ran.stdout[-2000:]}"
        assert ran.returncode == 0, f"{said}\n{self.daemon.log[-2000:]}"
        _, *told = re.split(r"^@@ (\S+)\n", ran.stdout, flags=re.MULTILINE)
        printed = dict(zip(told[::2], told[1::2], strict=True))
        for earlier, block in pairwise(blocks):
            if block.is_shown:
                said = printed[earlier.place]
                assert block.is_printed(said), f"{block.place}: printed is\n{said}"

    def tidy(self) -> None:
        """Remove the models and keys that a page has left: another one may make them under the same names."""
        for kind in ("models", "api-keys"):
            for one in self.daemon.call("GET", f"/v1/{kind}?perPage=-1")[1]["items"]:
                self.daemon.call("DELETE", f"/v1/{kind}/{one['id']}")

    def env(self) -> dict[str, str]:
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("GPUSTACK_", "HF_"))
        }
        path = f"{self.home / 'bin'}{os.pathsep}{clean['PATH']}"
        return {
            **clean,
            **self.ports,
            "PATH": path,
            "HOME": str(self.home),
            "PYTHONPATH": str(ROOT),
            "GPUSTACK_DATA_DIR": str(self.daemon.data_dir),
        }


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Reader]:
    """At home: the program, and a tiny model; the hub that the daemon asks has it under the names of the guide."""
    home = tmp_path_factory.mktemp("reader")
    (home / "bin").mkdir()
    program = home / "bin" / "gpustack"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m gpustack "$@"\n')
    program.chmod(0o755)
    shutil.copy(tiny_model, home / "tiny.gguf")
    with running_hub() as hub:
        hub.add("Qwen/Qwen3-0.6B-GGUF", {"Qwen3-0.6B-Q8_0.gguf": tiny_model})
        hub.add("me/base-GGUF", {"base-Q8_0.gguf": tiny_model})
        names = ("PORT", "WORKER_PORT", "METRICS_PORT", "WORKER_METRICS_PORT")
        ports = {
            f"GPUSTACK_{name}": str(port) for name, port in zip(names, free_ports(len(names)), strict=True)
        }
        with daemon(
            home / "data",
            "--host",
            "127.0.0.1",
            "--worker-name",
            "node-a",
            env={"HF_ENDPOINT": hub.url, **ports},
        ) as one:
            yield Reader(one, home, hub, ports)


@pytest.fixture(scope="module")
def cluster(reader: Reader) -> Iterator[Reader]:
    """The same with two machines more, which pages name."""
    make_tiny_lora(reader.home / "poet.gguf")
    reader.hub.add("me/pirate-lora-GGUF", {"pirate.gguf": reader.home / "poet.gguf"})
    joins = {
        "HF_ENDPOINT": reader.hub.url,
        "GPUSTACK_TOKEN": (reader.daemon.data_dir / "token").read_text().strip(),
    }
    server = ["--server-url", reader.daemon.url, "--worker-name"]
    with (
        daemon(reader.home / "second", *server, "worker-2", env=joins),
        daemon(reader.home / "third", *server, "worker-3", env=joins),
    ):
        ready = lambda: reader.daemon.call("GET", "/v1/workers?state=ready")[1]["pagination"]["total"] == 3  # noqa: E731
        reader.daemon.until(ready, "three workers")
        yield reader


def _blocks(page: Path, chosen: Callable[[Block], bool]) -> list[Block]:
    return [block for block in blocks_of(page) if chosen(block)]


RUN = [
    page
    for page in pages()
    if page != INSTALL
    and page.parent.name != "zh"
    and re.search(r"^ *```\w+ (?:run|slow)$", page.read_text(), re.MULTILINE)
]


def test_a_first_model_comes_up_as_the_guide_says(reader: Reader) -> None:
    try:
        reader.follow(_blocks(GUIDE / "first-model.md", lambda block: block.is_run))
    finally:
        reader.tidy()


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_the_commands_of_every_page_run(cluster: Reader, page: Path) -> None:
    read = _blocks(page, lambda block: block.is_run or block.is_slow or block.is_shown)
    try:
        cluster.follow(read, within=LONGEST)
    finally:
        cluster.tidy()


@pytest.mark.slow
def test_what_the_guide_says_of_installing_works(reader: Reader, tmp_path: Path) -> None:
    """In a copy of the checkout, and in a home of its own; it builds a wheel and fetches all packages twice."""
    copy = tmp_path / "checkout"
    for source in tracked():
        target = copy / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        os.utime(target, (0, 0))  # older than the environment, which make leaves as it is
    (copy / ".venv").symlink_to(ROOT / ".venv")
    slow = _blocks(INSTALL, lambda block: block.is_slow)
    assert [block.text.split()[0] for block in slow] == ["make", "python3", "mkdir", "python3"]
    reader.follow(slow, within=LONGEST, cwd=copy)
    with zipfile.ZipFile(next((copy / "dist").glob("*.whl"))) as wheel:
        assert "gpustack/api/guide/index.html" in wheel.namelist()


@pytest.mark.parametrize(
    ("shown", "said", "holds"),
    [
        ("NAME  STATE\ntiny  …\n", "NAME   STATE\ntiny   running  3s\n", True),
        ("tiny … 3s", "tiny running 4s", False),
        ("a (b)", "x a   (b) y", True),
    ],
)
def test_what_a_page_shows_is_compared_with_what_is_printed(shown: str, said: str, holds: bool) -> None:
    assert Block(GUIDE / "a.md", 1, "text", "shown", shown).is_printed(said) is holds
