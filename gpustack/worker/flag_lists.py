"""Asks each build of an engine once which flags it has, and remembers it on disk until the build changes."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import attrs
import trio

from gpustack import durable_file
from gpustack.domain.worker import EngineBuild
from gpustack.engines.engine import Engine, ListsFlags
from gpustack.engines.flag_list import FlagList, flags_of, public_version
from gpustack.hardware.child import run_child
from gpustack.nursery.limiter import threads

log = logging.getLogger(__name__)

_ANSWERS_WITHIN = 180.0
"""Seconds. A program of Python imports all of torch before it prints its help: 30 s of a processor, and more on a busy
machine."""
_LARGEST_HELP = 4 << 20
_QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "COLUMNS": "80"}
_threads = threads("flag lists", 1)


@attrs.define(eq=False, repr=False)
class FlagLists:
    """The flags of the builds of this worker. ``folder`` keeps them over a restart of the daemon; programs are asked
    with the environment ``env``."""

    folder: Path
    env: Mapping[str, str] = attrs.field(factory=dict)
    deadline: float = _ANSWERS_WITHIN
    _known: dict[str, FlagList | None] = attrs.field(factory=dict)
    _asking: trio.Lock = attrs.field(factory=trio.Lock)

    async def of(self, engine: Engine, build: EngineBuild) -> FlagList | None:
        """The flags that ``build`` has; ``None`` where its engine lists none, or the program does not answer.

        May take ``deadline`` seconds for a build that was not asked yet, and is not asked again before the daemon's
        next start if it failed. Cancellable. Raises nothing.
        """
        if not isinstance(engine, ListsFlags) or build.path is None:
            return None
        if public_version(build.version) == engine.newest_flags.version:
            return engine.newest_flags
        async with self._asking:
            key = await _threads.run(_key_of, build)
            if key not in self._known:
                self._known[key] = await self._kept(key) or await self._ask(engine, build, key)
            return self._known[key]

    async def _ask(self, engine: ListsFlags, build: EngineBuild, key: str) -> FlagList | None:
        assert build.path is not None
        said = await run_child(
            (build.path, *engine.help_arguments()),
            deadline=self.deadline,
            env={**self.env, **_QUIET},
            limit=_LARGEST_HELP,
        )
        names = flags_of(said.out.decode("utf-8", "replace")) if said.code == 0 else frozenset()
        if not names:
            reason = said.fault or (f"exit code {said.code}" if said.code else "its help describes no flags")
            log.info(
                "A build does not tell its flags, so they are not checked: build=%s reason=%s",
                build.shown,
                reason,
            )
            return None
        found = FlagList(version=build.version or "", names=names)
        try:
            await _threads.run(partial(self._keep, key, found))
        except OSError as error:
            log.info("Cannot keep the flags of a build: build=%s reason=%s", build.shown, error.strerror)
        return found

    async def _kept(self, key: str) -> FlagList | None:
        def read() -> FlagList | None:
            try:
                kept = json.loads((self.folder / f"{key}.json").read_bytes())
                return FlagList(version=str(kept["version"]), names=frozenset(map(str, kept["names"])))
            except (OSError, ValueError, KeyError, TypeError):
                return None

        return await _threads.run(read)

    def _keep(self, key: str, found: FlagList) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        content = json.dumps({"version": found.version, "names": sorted(found.names)})
        durable_file.write(self.folder / f"{key}.json", content, sync=False)

    def __repr__(self) -> str:
        return f"<FlagLists of {len(self._known)} builds>"


def _key_of(build: EngineBuild) -> str:
    """Differs when the program or its version does. Blocking."""
    try:
        seen = Path(build.path or "").stat()
        state = f"{seen.st_mtime_ns} {seen.st_size}"
    except OSError:
        state = ""
    return hashlib.sha256(f"{build.path}\n{build.version}\n{state}".encode()).hexdigest()[:32]
