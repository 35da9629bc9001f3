"""List the machines of the cluster; label, taint, close, empty, bar and remove them.

Usage:
  gpustack workers [--watch] [--output=FORM] [--quiet]
  gpustack workers label [--dry-run] NAME LABEL...
  gpustack workers taint [--dry-run] NAME TAINT...
  gpustack workers (cordon | uncordon | bar) [--dry-run] NAME...
  gpustack workers drain [--timeout=SECONDS | --no-wait] [--dry-run] [--output=FORM] NAME...
  gpustack workers (admit | rm) [--force] [--dry-run] NAME...

label sets KEY=VALUE, and takes KEY- away; deployments choose workers by labels.
taint sets KEY=VALUE:EFFECT or KEY:EFFECT, and takes KEY:EFFECT- or KEY- away. Deployments that do not tolerate it are
not placed there (NoSchedule), placed there last (PreferNoSchedule), or not placed and ended there (NoExecute).
cordon lets a worker keep what it runs, and places nothing new there. uncordon ends that, and a drain.
drain cordons a worker and starts elsewhere what it runs, a replica at a time, the new one before the old one ends; it
waits until nothing is left there. Then the machine can be stopped. What finds no room elsewhere goes on there.
A dry run changes nothing; that of drain tells where each instance would go, and what would stay and why.
bar voids the credential of a worker at once and keeps its machine from joining; what ran there is placed elsewhere.
admit lets a machine join as this worker with the cluster token, once: it was barred, or has lost its credential.
rm forgets a worker; what ran there is placed elsewhere. One that still runs would join again: stop it first.

Options:
  -w, --watch        Go on, and show what changes.
  -o, --output=FORM  table, wide, json or yaml (default: table; wide has all columns).
  -q, --quiet        Names only.
  --timeout=SECONDS  How long to wait for a worker to be empty (default: 0, as long as it takes).
  --no-wait          Do not wait for it.
  --dry-run          Only tell what would be changed.
  --force            Also a worker that is there.
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from gpustack.cli import output, phrase
from gpustack.cli.columns import Column
from gpustack.cli.command_line import CommandLine, read
from gpustack.cli.output import Cell, Row
from gpustack.cli.session import Doc, ServerSession, open_session
from gpustack.cli.terminal import Terminal, stderr
from gpustack.text import listed

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

_HEADS = (
    "NAME",
    "STATE",
    Column("ADDRESS", wide=True),
    "MEMORY",
    "GPUS",
    "VIDEO MEMORY",
    Column("VERSION", wide=True),
    Column("HEARD", ticks=True),
)
_SHOWN = 3


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each worker; memory is what models claim of what there is."""
    command_line = read(__doc__, "workers", argv)

    if command_line.flag("drain") and command_line.flag("--dry-run"):
        from gpustack.cli.drain_plan import plan_of, told

        names = command_line.many("NAME")
        outlook = open_session(env).run(lambda client: plan_of(client, names))
        output.show(command_line, outlook, lambda: told(outlook))
        return 0
    verb = next((verb for verb in _VERBS if command_line.flag(verb)), None)
    if verb is not None:
        change = _change(verb, command_line)
        patience = command_line.whole("--timeout") or None
        awaited = verb == "drain" and not command_line.flag("--no-wait")
        names = command_line.many("NAME")
        terminal = stderr(env) if awaited else None
        begun: list[str] = []
        try:
            open_session(env).run(lambda client: _act(client, names, change, patience, terminal, begun))
        except KeyboardInterrupt:
            if terminal is not None and begun:
                terminal.say(_goes_on(begun))
            raise
        return 0
    session = open_session(env)
    if command_line.flag("--watch"):
        return _watch(command_line, session, env)
    workers, losses = session.run(_listed)
    row = partial(_row, now=datetime.now(UTC))
    empty = "No worker has joined; gpustack start --server-url URL --token TOKEN joins one."
    output.show_list(command_line, workers, _HEADS, row, env, empty=empty)
    aside = stderr(env)
    for line in survival_lines(losses) if output.is_table(command_line) else ():
        aside.say(line)
    return 0


def _watch(command_line: CommandLine, session: ServerSession, env: Mapping[str, str]) -> int:
    from gpustack.cli.lookup import WORKERS
    from gpustack.cli.watching import ListView, looked_at, watch_list

    view = ListView(heads=_HEADS, row=lambda worker: _row(worker, datetime.now(UTC)))
    # When a worker was last heard is no change of its record.
    return watch_list(command_line, session, looked_at(lambda client: client.all(WORKERS)), view, env)


_VERBS = ("label", "taint", "cordon", "uncordon", "drain", "bar", "admit", "rm")


def _change(verb: str, command_line: CommandLine) -> Callable[[AdminClient, Doc], Awaitable[None]]:
    """What a verb does to one worker; raises UsageError."""
    from gpustack.cli import worker_change as change

    force, usage = command_line.flag("--force"), command_line.usage
    changes: Mapping[str, Callable[[AdminClient, Doc], Awaitable[None]]] = {
        "label": partial(change.label, labels=change.labels_of(command_line.many("LABEL"), usage)),
        "taint": partial(change.taint, edits=change.taints_of(command_line.many("TAINT"), usage)),
        "cordon": partial(change.close, closed=True),
        "uncordon": partial(change.close, closed=False),
        "drain": change.drain,
        "bar": change.bar,
        "admit": partial(change.admit, force=force),
        "rm": partial(change.remove, force=force),
    }
    return changes[verb]


async def _act(
    client: AdminClient,
    names: Sequence[str],
    change: Callable[[AdminClient, Doc], Awaitable[None]],
    patience: int | None,
    terminal: Terminal | None,
    begun: list[str],
) -> None:
    """Change every worker that is named, or none if one of them is unknown; those that are go to ``begun``. With a
    terminal, wait until they are empty."""
    from gpustack.cli.lookup import workers_named
    from gpustack.cli.worker_change import until_empty

    workers = await workers_named(client, names)
    for worker in workers:
        await change(client, worker)
        begun.append(str(worker["name"]))
    if terminal is not None:
        for worker in workers:
            await until_empty(client, worker, terminal, patience)


def _goes_on(names: Sequence[str]) -> str:
    """What is left to know of drains that are not waited for any more."""
    go = "goes" if len(names) == 1 else "go"
    return (
        f"{', '.join(names)} {go} on being drained: gpustack workers shows how far that is, gpustack workers uncordon "
        f"{' '.join(names)} ends it"
    )


async def _listed(client: AdminClient) -> tuple[list[Doc], list[Doc] | None]:
    """The workers, and what the loss of each would do; ``None`` while that is not known."""
    from gpustack.cli.lookup import SURVIVAL, WORKERS
    from gpustack.errors import NotFound

    workers = await client.all(WORKERS)
    try:
        found = await client.get(SURVIVAL)
    except NotFound:  # a former server
        return workers, None
    return workers, None if found.get("at") is None else list(found["losses"])


def survival_lines(losses: list[Doc] | None) -> list[str]:
    """Which models would not survive the loss of one worker; nothing while that is not known, or nothing runs."""
    if not losses:
        return []
    stopped = [
        (str(one["worker"]), [str(model["model"]) for model in one["stops"]])
        for one in losses
        if one["stops"]
    ]
    if stopped:
        lines = [
            f"Without {worker} there would be no {listed(models, _SHOWN)}."
            for worker, models in stopped[:_SHOWN]
        ]
        left = len(stopped) - _SHOWN
        more = (
            [f"Without {f'each of {left}' if left > 1 else 'one'} more there would be models missing too."]
            if left > 0
            else []
        )
        return [*lines, *more, "gpustack plan --lose WORKER shows more."]
    if any(one["unknown"] for one in losses):
        return []
    return ["Every model would survive the loss of any one worker."]


def _row(worker: Doc, now: datetime) -> Row:
    status = worker.get("status") or {}
    state = _state(worker)
    return Row(
        [
            str(worker["name"]),
            Cell(state, phrase.state_style(state)),
            str(worker.get("ip") or "-"),
            _claimed([status.get("memory") or {}]),
            _devices(status.get("gpu_devices") or []),
            _claimed([device.get("memory") or {} for device in status.get("gpu_devices") or []]),
            str(worker.get("version") or "-"),
            phrase.age(worker.get("heartbeat_time"), now),
        ],
        remark="; ".join(filter(None, (_why(worker, state), _unclaimed(status), _tainted(worker)))),
    )


def _why(worker: Doc, state: str) -> str:
    """Why it is in that state; of one that is drained, how far that is."""
    drain = worker.get("drain")
    if state == "draining" and drain is not None:
        from gpustack.cli.drain_plan import progress

        return progress(drain)
    why = "" if state == "ready" else phrase.one_line(worker.get("state_message"))
    closed = "being drained" if worker.get("draining") else "cordoned" if worker.get("cordoned") else ""
    return "; ".join(filter(None, (why, closed if closed != state and state != "draining" else "")))


def _tainted(worker: Doc) -> str:
    taints = phrase.taints_in_line(worker)
    return f"tainted {taints}" if taints else ""


def _state(worker: Doc) -> str:
    """The state that is shown: what keeps new instances away comes first."""
    if worker.get("barred"):
        return "barred"
    state = str(worker.get("state"))
    if state != "ready":
        return state
    return "draining" if worker.get("draining") else "cordoned" if worker.get("cordoned") else state


def _claimed(memories: list[Doc]) -> str:
    totals = [memory.get("total") for memory in memories]
    known = [total for total in totals if isinstance(total, int)]
    if not known:
        return "-"
    return phrase.part(sum(memory.get("allocated") or 0 for memory in memories), sum(known))


def _unclaimed(status: Doc) -> str:
    """What is in use of GPUs without a claim: by other programs, and by engines that take more than theirs."""
    memories = [device.get("memory") or {} for device in status.get("gpu_devices") or []]
    others = sum(memory.get("foreign") or 0 for memory in memories)
    beyond = sum(memory.get("overrun") or 0 for memory in memories)
    parts = [(others, "used by others"), (beyond, "beyond claims")]
    told = ", ".join(f"{phrase.size(size)} {what}" for size, what in parts if size)
    return f"of video memory {told}" if told else ""


def _devices(devices: list[Doc]) -> str:
    names = [phrase.chip(device.get("name")) for device in devices]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)) or "-"
