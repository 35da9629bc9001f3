"""Wait until models, instances, workers or files are as they are wanted; for scripts.

Usage:
  gpustack wait [options] --for=WHAT NAME...

NAME is a model, an instance or a worker, as model/NAME, instance/NAME or worker/NAME where several have it, or a model
file as file/ID. It ends with 0 when all of them are so, with 1 as soon as one cannot become so, and with 124 when time
is up, saying what each waits for.

  ready      a model with all its replicas, an instance that serves, a worker that is heard, a file that is there
  scheduled  a model all replicas of which have a place, an instance that has one
  stopped    a model without replicas, of which nothing runs any more
  drained    a worker that is being drained and runs nothing any more
  gone       nothing of that name is there, and of a model no instance
  created    there is something of that name

Options:
  --for=WHAT         ready, scheduled, stopped, drained, gone or created.
  --timeout=SECONDS  Give up after so long (default: 0, without end).
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gpustack.cli.command_line import read
from gpustack.cli.failure import WaitTimeout
from gpustack.cli.session import open_session
from gpustack.cli.terminal import Terminal, harmless, stderr

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

_LOOK_EVERY = 1.0
_ATTEMPTS = 30
"""How many looks in a row the server may be away."""


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a line for each object that is as wanted, when it is."""
    command_line = read(__doc__, "wait", argv)
    from gpustack.cli.awaited import CONDITIONS

    wanted = command_line.choice("--for", *CONDITIONS)
    patience = command_line.whole("--timeout") or None
    names = list(dict.fromkeys(command_line.many("NAME")))
    open_session(env).run(lambda client: _wait(client, wanted, names, patience, stderr(env)))
    return 0


async def _wait(
    client: AdminClient, wanted: str, names: Sequence[str], patience: int | None, aside: Terminal
) -> None:
    import math

    import trio

    from gpustack.cli.awaited import subject_named
    from gpustack.errors import Unavailable

    left = {name: await subject_named(client, name, wanted) for name in names}
    reasons: dict[str, str] = {}
    failures = 0
    with trio.move_on_after(math.inf if patience is None else patience):
        while True:
            try:
                for name, subject in list(left.items()):
                    outlook = await subject.look(client)
                    reasons[name] = outlook.why
                    if outlook.holds:
                        aside.clear()
                        print(harmless(f"{name} is {wanted}"), flush=True)
                        del left[name], reasons[name]
                failures = 0
            except Unavailable as error:
                failures += 1
                if failures >= _ATTEMPTS:
                    raise Unavailable(f"{error}; {_names(left)} may become {wanted} nevertheless") from error
            if not left:
                return
            aside.draw(f"{next(iter(left))}: {reasons.get(next(iter(left)), '')}"[: aside.width - 1])
            await trio.sleep(_LOOK_EVERY)
    aside.clear()
    told = "; ".join(f"{name}: {reasons.get(name) or 'nothing is known of it'}" for name in left)
    raise WaitTimeout(
        f"{_names(left)} {'is' if len(left) == 1 else 'are'} not {wanted} after {patience} s: {told}"
    )


def _names(names: Mapping[str, object]) -> str:
    return ", ".join(names)
