"""Waits until a model serves, showing how it comes up."""

from __future__ import annotations

import trio

from gpustack.cli.lookup import INSTANCES, MODELS
from gpustack.cli.phrase import one_line
from gpustack.cli.progress import DeploymentFailure, DeploymentProgress, Doc
from gpustack.errors import Forbidden, NotFound, Unavailable
from gpustack.remote.admin_client import CREATED, DELETED, UPDATED, AdminClient
from gpustack.remote.http import RemoteError

_REDRAW = 0.25
_AGAIN = 1.0
_ATTEMPTS = 10


async def until_ready(client: AdminClient, model: Doc, progress: DeploymentProgress) -> Doc:
    """The first instance of ``model`` that runs.

    Raises progress.Failed when it fails, NotFound when the model is removed meanwhile, Unavailable when the server
    stays away. Waits as long as it takes: cancel it at will, nothing is changed by it.
    """
    found: list[Doc] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_redraw, progress)
        try:
            found.append(await _watch(client, model, progress))
        finally:
            progress.terminal.clear()
        nursery.cancel_scope.cancel()
    return found[0]


async def _redraw(progress: DeploymentProgress) -> None:
    while True:
        await trio.sleep(_REDRAW)
        progress.draw()


async def _watch(client: AdminClient, model: Doc, progress: DeploymentProgress) -> Doc:
    failures = 0
    while True:
        try:
            ready = await _look(client, model, progress)
            failures = 0
        except RemoteError as error:
            failures += 1
            if failures >= _ATTEMPTS:
                raise Unavailable(f"{error}; {model['name']} may come up nevertheless") from error
            ready = None
        if ready is not None:
            return ready
        await trio.sleep(_AGAIN)


async def _look(client: AdminClient, model: Doc, progress: DeploymentProgress) -> Doc | None:
    """One watch: from what is there until an instance runs, or until the server ends the stream."""
    present: dict[int, Doc] = {}
    async with client.watch(INSTANCES, model_id=model["id"]) as events:
        async for event in events:
            if event.kind in (CREATED, UPDATED):
                present[event.item["id"]] = event.item
            elif event.kind == DELETED:
                present.pop(event.item["id"], None)
                if not present:
                    await _still_wanted(client, model)
            ready = progress.feed(present.values())
            if ready is not None:
                return ready
            await _refuse_hopeless(client, progress)
    await _still_wanted(client, model)
    return None


async def _refuse_hopeless(client: AdminClient, progress: DeploymentProgress) -> None:
    """Raises Failed when what waits for a place would wait for ever."""
    waiting = progress.waiting
    if waiting is None:
        return
    try:
        told = await client.get(f"{INSTANCES}/{waiting['id']}/explain")
    except (NotFound, Forbidden, Unavailable):
        return  # gone meanwhile, or nobody can say now
    if told.get("final"):
        progress.terminal.clear()
        raise DeploymentFailure(
            f"{progress.model} cannot run here: {one_line(told.get('sentence')).rstrip('.')}", waiting
        )


async def _still_wanted(client: AdminClient, model: Doc) -> None:
    try:
        now = await client.get(f"{MODELS}/{model['id']}")
    except NotFound:
        raise NotFound(f"Model {model['name']} was removed meanwhile") from None
    if not now.get("replicas"):
        raise NotFound(f"Model {model['name']} was stopped meanwhile")
