"""The engine builds of this machine, and the device types that each can drive: the programs themselves are asked."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import attrs
import trio

from gpustack.domain.device import Device
from gpustack.domain.worker import BuildPresence, EngineBuild
from gpustack.engines.program import EngineProgram, programs
from gpustack.hardware.engine_program import (
    BuildError,
    EnvironmentSource,
    FoundProgram,
    answer,
    ask_program,
    find_programs,
    offer,
)
from gpustack.hardware.launcher_build import (
    LAUNCHER_PROGRAMS,
    LauncherProgram,
    ask_launcher,
    library_file,
    missing_launcher,
)
from gpustack.hardware.rpc_build import build_digest, rpc_server_beside
from gpustack.nursery.limiter import threads
from gpustack.text import said_by

DEADLINE = 20.0
"""Seconds that a build may take to list its devices; a CUDA library read from a slow disk takes several."""

EMBEDDED = "embedded xllamacpp"

NO_DEVICE_ADVICE = (
    "This build of llama.cpp drives no GPU here; for GPUs install an xllamacpp wheel built for them (its README "
    "names the package index for CUDA, ROCm and Vulkan), run gpustack download-tools, or put a llama-server built for "
    "them on PATH"
)

_BACKENDS: Mapping[str, str] = {
    "cuda": "cuda",
    "rocm": "rocm",
    "hip": "rocm",
    "musa": "musa",
    "sycl": "xpu",
    "cann": "npu",
    "metal": "mps",
    "mtl": "mps",
}
"""Name of a ggml backend → device type."""

_VULKAN_VENDORS: Mapping[str, str] = {
    "nvidia": "cuda",
    "geforce": "cuda",
    "amd": "rocm",
    "radeon": "rocm",
    "intel": "xpu",
    "moore threads": "musa",
    "apple": "mps",
}
"""Word in a Vulkan device's description → device type, as the detectors call it."""

_XLLAMACPP_QUESTION = """
import json, sys
import xllamacpp
json.dump([[d["name"], d["description"]] for d in xllamacpp.get_device_info()], sys.stdout)
"""


_DEVICE_LINE = re.compile(r"^\s+([A-Za-z]+)\d*:\s*(.+?)\s*(?:\(\d+ MiB.*)?$", re.MULTILINE)
_RPC_OPTION = re.compile(r"^\s*--rpc\b", re.MULTILINE)
_files = threads("engine builds", 1)
_VERSION_LINE = re.compile(r"^version:\s*(\S+)", re.MULTILINE)


@attrs.frozen
class _CachedBuild:
    """What a build answered; valid while its file has the same ``fingerprint`` (modification time, size)."""

    fingerprint: tuple[int, int]
    build: EngineBuild


@attrs.define(eq=False)
class BuildFinder:
    """Finds builds, and remembers what each answered until its file changes.

    ``tools`` is where ``gpustack download-tools`` puts ``llama-server``. ``python`` runs the child that asks the
    embedded llama.cpp; ``env`` is the children's environment, by default ours. ``programs`` are those of the other
    engines, by the engine's name; ``configured`` are the paths that an administrator gave for some of them.
    """

    deadline: float = DEADLINE
    python: str = sys.executable
    env: Mapping[str, str] | None = None
    tools: Path | None = None
    programs: Mapping[str, EngineProgram] = attrs.field(factory=programs)
    configured: Mapping[str, Path] = attrs.field(factory=dict)
    environments: EnvironmentSource | None = None
    launchers: tuple[LauncherProgram, ...] = LAUNCHER_PROGRAMS
    """Programs of our own, whose libraries may be installed beside us."""
    lends: bool = True
    """Whether this machine's devices may be used by other workers over RPC."""
    _asked: dict[str, _CachedBuild] = attrs.field(factory=dict)
    _devices: frozenset[tuple[object, ...]] = frozenset()
    """Those that were there when the builds were asked."""

    async def find(
        self, llama_server_path: str | None, path_env: str, devices: Sequence[Device] = ()
    ) -> tuple[EngineBuild, ...]:
        """The builds of this machine, the preferred one of each engine first; with other ``devices`` than before, all
        are asked again.

        Builds that drive devices come before those that do not; among equals the configured ``llama_server_path``, then
        the one of ``tools``, then ``llama-server`` on ``path_env``, then the embedded one. A ``llama-server`` that does
        not work is left out, and the ``advice`` of the build used instead says so. Children run one after the other,
        each with a deadline. Cancellable.
        """
        there = frozenset((one.index, one.type, one.name, one.fault is None) for one in devices)
        if there != self._devices:
            self._asked.clear()
            self._devices = there
        return (
            *await self._llama_cpp(llama_server_path, path_env),
            *await self._others(path_env, [str(one.type) for one in devices if one.fault is None]),
            *[await self._launcher(program) for program in self.launchers],
            EngineBuild(engine="custom", origin="any command"),
        )

    async def ask(self, engine: str, path: str, origin: str) -> EngineBuild:
        """The build of an engine with a program at ``path``. Raises ``BuildError``. Cancellable."""
        program = self.programs[engine]

        async def query(path: str, origin: str) -> EngineBuild:
            return await ask_program(
                engine, program, FoundProgram(path, origin), deadline=self.deadline, env=self.env
            )

        return await self._remembered(path, origin, query)

    async def _others(self, path_env: str, device_types: Sequence[str]) -> list[EngineBuild]:
        """The builds of the engines in ``programs``, the ones that were made here, and what can be installed."""
        made = [] if self.environments is None else await self.environments.made()
        unable = (
            "no environments are made here" if self.environments is None else await self.environments.unable()
        )
        found: list[EngineBuild] = []
        for engine, program in self.programs.items():
            complaints: list[str] = []
            configured = self.configured.get(engine)
            beside = Path(self.python).parent
            places = find_programs(program.name, configured, path_env, beside, program.places)
            mine = [(one.path, EngineBuild(engine=engine, origin=one.origin)) for one in places]
            mine += [(one.path or "", one) for one in made if one.engine == engine]
            for path, known in mine:
                try:
                    build = await self.ask(engine, path, known.origin)
                except BuildError as fault:
                    complaints.append(str(fault))
                    continue
                found.append(
                    attrs.evolve(
                        build,
                        # The environment's folder is named after the version that was asked for, not after "+cu129".
                        version=known.version or build.version,
                        presence=known.presence,
                        requirements=known.requirements,
                        disk=known.disk,
                    )
                )
            if (last := offer(engine, program, device_types, unable)) is not None:
                found.append(attrs.evolve(last, advice="; ".join(filter(None, [*complaints, last.advice]))))
            elif complaints:
                advice = "; ".join(complaints)
                found.append(EngineBuild(engine=engine, presence=BuildPresence.MISSING, advice=advice))
        return found

    async def _launcher(self, program: LauncherProgram) -> EngineBuild:
        """The build of a program of our own, or that its libraries are missing."""
        library = library_file(program)
        if library is None:
            return missing_launcher(program)

        async def query(path: str, origin: str) -> EngineBuild:
            return await ask_launcher(
                program, lambda question: self._answer(self.python, "-P", "-c", question)
            )

        return await self._remembered(library, program.origin, query)

    async def _llama_cpp(self, llama_server_path: str | None, path_env: str) -> list[EngineBuild]:
        found: list[EngineBuild] = []
        complaints: list[str] = []
        for path, origin in _servers(llama_server_path, self.tools, path_env):
            try:
                found.append(await self._remembered(path, origin, self._ask_server))
            except BuildError as fault:
                complaints.append(str(fault))
        embedded = await self._embedded()
        if embedded is not None:
            found.append(embedded)
        found.sort(key=lambda build: not build.drives)  # stable: the order above among equals
        if found and complaints:
            advice = [*complaints, found[0].advice] if found[0].advice else complaints
            found[0] = attrs.evolve(found[0], advice=". ".join(advice))
        return found

    async def _embedded(self) -> EngineBuild | None:
        library = _embedded_library()
        if library is None:
            return None
        origin = f"{EMBEDDED} {_version_of('xllamacpp') or ''}".strip()
        try:
            return await self._remembered(library, origin, self._ask_xllamacpp)
        except BuildError as fault:
            # It is installed and may run: only its devices are unknown.
            return EngineBuild(
                engine="llama.cpp", version=_version_of("xllamacpp"), origin=origin, advice=str(fault)
            )

    async def _remembered(self, path: str, origin: str, ask: _BuildQuery) -> EngineBuild:
        try:
            seen = await trio.Path(path).stat()
        except OSError as error:
            raise BuildError(f"{path} cannot be used: {said_by(error)}") from error
        fingerprint = (seen.st_mtime_ns, seen.st_size)
        known = self._asked.get(path)
        if known is None or known.fingerprint != fingerprint or known.build.origin != origin:
            known = self._asked[path] = _CachedBuild(fingerprint, await ask(path, origin))
        return known.build

    async def _ask_server(self, path: str, origin: str) -> EngineBuild:
        told = await self._answer(path, "--version")
        version = _VERSION_LINE.search(told)
        listed = await self._answer(path, "--list-devices")
        drives = device_types(_DEVICE_LINE.findall(listed))
        offers_rpc = await self._has_rpc(path)
        rpc_server = await _files.run(rpc_server_beside, path) if offers_rpc else None
        return EngineBuild(
            engine="llama.cpp",
            version=version.group(1) if version else None,
            origin=origin,
            path=path,
            drives=drives,
            advice="" if drives else NO_DEVICE_ADVICE,
            digest=await _files.run(build_digest, told, rpc_server),
            rpc=offers_rpc,
            rpc_server=rpc_server if self.lends else None,
        )

    async def _has_rpc(self, path: str) -> bool:
        try:
            return _RPC_OPTION.search(await self._answer(path, "--help")) is not None
        except BuildError:  # it serves all the same
            return False

    async def _ask_xllamacpp(self, path: str, origin: str) -> EngineBuild:
        output = await self._answer(self.python, "-P", "-c", _XLLAMACPP_QUESTION)
        try:
            names = [
                (str(name), str(description)) for name, description in json.loads(output.splitlines()[-1])
            ]
        except (ValueError, TypeError, IndexError) as error:
            raise BuildError(f"The devices of {origin} are unknown: its list cannot be read") from error
        drives = device_types(names)
        return EngineBuild(
            engine="llama.cpp",
            version=_version_of("xllamacpp"),
            origin=origin,
            drives=drives,
            advice="" if drives else NO_DEVICE_ADVICE,
        )

    async def _answer(self, *argv: str) -> str:
        return await answer(argv, deadline=self.deadline, env=self.env)


async def find_builds(
    llama_server_path: str | None, path_env: str, *, env: Mapping[str, str] | None = None
) -> tuple[EngineBuild, ...]:
    """One search; see ``BuildFinder.find``."""
    return await BuildFinder(env=env).find(llama_server_path, path_env)


async def llama_server_fault(program: Path, *, env: Mapping[str, str] | None = None) -> str | None:
    """Why the ``llama-server`` at ``program`` cannot be used on this machine, or ``None``."""
    try:
        await BuildFinder(env=env)._ask_server(str(program), "llama-server")
    except BuildError as fault:
        return str(fault)
    return None


def device_types(devices: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The device types of ggml devices, given as name (``CUDA0``) and description. The CPU has none."""
    found = set()
    for name, description in devices:
        backend = name.lower().rstrip("0123456789")
        if backend == "vulkan":
            words = description.lower()
            found |= {kind for vendor, kind in _VULKAN_VENDORS.items() if vendor in words}
        elif backend in _BACKENDS:
            found.add(_BACKENDS[backend])
    return tuple(sorted(found))


_BuildQuery = Callable[[str, str], Awaitable[EngineBuild]]


def _servers(configured: str | None, tools: Path | None, path_env: str) -> list[tuple[str, str]]:
    found = [(configured, "llama-server as configured")] if configured else []
    if tools is not None and tools.is_file():
        found.append((str(tools), "llama-server of download-tools"))
    on_path = shutil.which("llama-server", path=path_env) if path_env else None
    if on_path is not None and on_path not in (path for path, _ in found):
        found.append((on_path, "llama-server on PATH"))
    return found


def _embedded_library() -> str | None:
    """The file of the extension, found without importing it."""
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or not spec.submodule_search_locations:
        return None
    extension = next(Path(spec.submodule_search_locations[0]).glob("xllamacpp*.so"), None)
    return str(extension) if extension is not None else spec.origin


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
