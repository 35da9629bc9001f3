"""Fetch llama-server and its kin for this machine, or for one without a network.

Usage:
  gpustack download-tools [options]

They go to <bin-dir>/llama.cpp, where a worker finds them without being restarted: llama-server serves GGUF models in
place of the embedded llama.cpp, also on GPUs for which that was not built. What is there before is replaced once all
of the new has come, has been checked against the hashes that the site tells, and runs here. A download that was
stopped is gone on with.

Options:
  --tools-download-base-url=URL  A mirror with the folders of the release site
                                 (<URL>/ggml-org/llama.cpp/releases/download/<version>/), with a SHA256SUMS in
                                 them if hashes are to be checked (default: github.com).
  --version=TAG                  The version to fetch (default: the latest of the site).
  --save-archive=FILE            Write the tools to a .tar.gz too; with --system or --arch of another machine only
                                 there.
  --load-archive=FILE            Take the tools from such an archive, or from one of a release; nothing is fetched.
  --system=NAME                  linux or darwin (default: this one).
  --arch=NAME                    amd64 or arm64 (default: this one).
  --device=NAME                  cpu, cuda, rocm, vulkan, sycl, or with a version such as cuda-12.8 (default: what
                                 this machine has).
  --data-dir=DIR                 Of the daemon (default: where gpustack start has it).
  --bin-dir=DIR                  Where the tools go (default: <data-dir>/bin).
  -q, --quiet                    Say nothing but the path of llama-server.
  --dry-run                      Only tell what would be changed.
  -h, --help                     Show this help.

Every option may be given in the environment too, such as GPUSTACK_SAVE_ARCHIVE and GPUSTACK_TOOLS_DOWNLOAD_BASE_URL.
GPUSTACK_DISABLE_DYNAMIC_LINK_LLAMA_BOX=true asks for a statically linked build, where there is one.
"""

from __future__ import annotations

import io
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from gpustack.cli.command_line import CommandLine, read
from gpustack.cli.dry_run import intend
from gpustack.cli.failure import UsageError
from gpustack.cli.installation import load_options
from gpustack.cli.terminal import Terminal, stderr
from gpustack.errors import Unavailable

if TYPE_CHECKING:
    from gpustack.artifacts.tools import BuildRequest

_ELSEWHERE = (
    "set --tools-download-base-url to a mirror, or HTTPS_PROXY, or bring an archive that another machine wrote with "
    "--save-archive, and take it with --load-archive"
)
_OPTIONS = ("save-archive", "load-archive", "system", "arch", "device")


@attrs.frozen(kw_only=True)
class _ToolRequest:
    """What is to be done, from the command line and the environment."""

    bin_dir: Path
    base: str | None
    tag: str | None
    save: Path | None
    load: Path | None
    system: str | None
    arch: str | None
    device: str | None
    static: bool
    cuda: str | None


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print where ``llama-server`` is, or the archive that was written."""
    command_line = read(__doc__, "download-tools", argv)
    asked = _request_of(command_line, env)
    if asked.load is not None and (asked.save is not None or command_line.text("--tools-download-base-url")):
        raise command_line.error(
            "--load-archive fetches nothing: leave out --save-archive and --tools-download-base-url"
        )
    kept = "" if asked.save is None else f", and write {asked.save}"
    origin = asked.load or asked.base or "github.com"
    intend(
        env, f"take llama.cpp {asked.tag or 'of the latest version'} from {origin} to {asked.bin_dir}{kept}"
    )
    import trio

    aside = Terminal(io.StringIO()) if command_line.flag("--quiet") else stderr(env)
    try:
        print(trio.run(_carry_out, asked, aside))
    finally:
        aside.clear()
    return 0


def _request_of(command_line: CommandLine, env: Mapping[str, str]) -> _ToolRequest:
    given = {
        name: command_line.text(f"--{name}") or env.get(f"GPUSTACK_{name.upper().replace('-', '_')}") or None
        for name in _OPTIONS
    }
    flags = ("--data-dir", "--bin-dir", "--tools-download-base-url")
    start = [f"{flag}={command_line.text(flag)}" for flag in flags if command_line.text(flag) is not None]
    # A worker's settings on this machine say nothing of a server here.
    of_start = {name: value for name, value in env.items() if name != "GPUSTACK_SERVER_URL"}
    loaded = load_options(start, of_start)
    return _ToolRequest(
        bin_dir=loaded.options.bin_dir,
        base=loaded.options.tools_download_base_url,
        tag=command_line.text("--version"),
        save=_path(given["save-archive"]),
        load=_path(given["load-archive"]),
        system=given["system"],
        arch=given["arch"],
        device=given["device"],
        static=loaded.environment.disable_dynamic_link_llama_box,
        cuda=loaded.environment.cuda_version,
    )


async def _carry_out(asked: _ToolRequest, aside: Terminal) -> str:
    from gpustack.artifacts.tools import Tools
    from gpustack.domain.unit import human_bytes
    from gpustack.hardware.engine_build import llama_server_fault
    from gpustack.remote.http import RemoteConnectionError, open_client

    tools = Tools(asked.bin_dir, random.SystemRandom())
    if asked.load is not None:
        build = await tools.load(asked.load, try_out=llama_server_fault)
        aside.say(f"llama.cpp {build.tag} is in place.")
        return str(tools.program)
    request, here = await _build_request(asked)
    if not here and asked.save is None:
        raise UsageError("Tools for another machine are only packed: say where with --save-archive")
    async with open_client() as client:
        try:
            build = await tools.bring(
                request,
                client=client,
                tell=lambda sentence: aside.say(f"{sentence}."),
                progress=lambda done, total: aside.draw(
                    f"fetching {human_bytes(done)} of {human_bytes(total)}"
                ),
                try_out=llama_server_fault,
                save=asked.save,
                install=here,
            )
        except RemoteConnectionError as error:
            raise Unavailable(f"{error}; {_ELSEWHERE}") from error
    checked = "its hash is right" if build.checked else "there was no hash to check it by"
    aside.say(f"llama.cpp {build.tag} ({build.name}) {'is in place' if here else 'is packed'}; {checked}.")
    return str(tools.program if here else asked.save)


async def _build_request(asked: _ToolRequest) -> tuple[BuildRequest, bool]:
    """What to fetch, and whether it is for this machine."""
    import platform
    from datetime import UTC, datetime

    from gpustack.artifacts.tool_release import Platform, newest_cuda
    from gpustack.artifacts.tool_site import ReleaseSite
    from gpustack.artifacts.tools import BuildRequest
    from gpustack.hardware.detection import DeviceMonitor
    from gpustack.worker.tool_fetcher import platform_of

    mine = Platform.of(platform.system(), platform.machine())
    theirs = Platform.of(
        asked.system or platform.system(), asked.arch or platform.machine(), asked.device or "cpu"
    )
    here = (mine.system, mine.arch) == (theirs.system, theirs.arch)
    if asked.device is not None or not here:
        chosen = attrs.evolve(theirs, newest=newest_cuda(None, asked.cuda))
    else:
        chosen = platform_of((await DeviceMonitor().look(datetime.now(UTC))).devices, asked.cuda)
    return (
        BuildRequest(
            platform=chosen,
            any_device=asked.device is None,
            tag=asked.tag,
            static=asked.static,
            site=ReleaseSite.at(asked.base),
        ),
        here,
    )


def _path(text: str | None) -> Path | None:
    return None if text is None else Path.cwd() / text
