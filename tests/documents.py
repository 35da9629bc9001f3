"""Documents of `docs/` that have to keep up with the code: their tables read back, and written anew.

python -m tests.documents lifecycle > docs/lifecycle.md
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"

LIFECYCLE = """\
# The life of a model instance

<!-- Written by `make docs`. Change gpustack/domain/lifecycle.py, then run that again. -->

An instance is one replica of a model. Its states are shown by `gpustack ps`, the console and `GET /v1/model-instances`
in the words used here; the table at the end has every move between them.

## From a deployment to an answer

```
 gpustack run MODEL ──► the model is stored; as many instances as it wants are created
                          │
                          ▼          the scheduler: reads the model's header, then looks for a place
                       pending ───────────────► analyzing
                        ▲   │                    │  │  │
                        │   │ header known       │  │  └─ it can never run as specified ──► error (without a worker)
                        │   │                    │  │                                           │ looked at again
                        └───┼── nothing fits now, and why; looked at again when that changes ◄──┘ when mended
                            ▼                       │
                        scheduled ◄─────────────────┘ a place fits and is claimed
                            │
                            ▼        its worker: files, a port, the engine
 ┌────────────────────► initializing ─────────────► downloading 42%
 │                          │ files are there         │
 │                          ▼                         │
 │  after a pause       starting ◄────────────────────┘
 │  that grows              │ the engine answers its readiness probe
 │                          ▼
 │                      running ── requests are sent to it
 │                          │  ▲
 │  a step failed, or       │  │ heard again
 │  the engine ended        ▼  │
 └──── error            unreachable ── its worker is silent
                            │ for too long: it is pending again, and placed elsewhere
                            ▼
                         pending

 ending: from any of these, once the instance is to go. It is shown until its engine has ended; then it is not listed.
```

- `pending`: it has no place. The message says what is short, and the smallest change that would make it fit;
  `gpustack explain` says it worker by worker.
- `analyzing`: the header of its model file is being read.
- `scheduled`: it has a place, and its worker has not taken it yet.
- `initializing`: its worker looks for files and a port; also after a restart of the worker's daemon.
- `downloading 42%`: its files are being fetched. The number is `download_progress`.
- `starting`: the engine loads the model; `gpustack logs` shows what it says.
- `running`: it answers.
- `error`: with a worker, a step failed, and the worker tries again by itself unless the deployment says not to
  (`restart_on_error`). Without a worker, it can never run as specified. The message says why.
- `unreachable`: it ran when its worker was last heard, and may run on.
- `ending`: it is to go, because it was deleted, scaled down, replaced by a newer one, makes room for one of higher
  priority, or is on a worker that is drained. This is no state of its own: `deleted_at` is set, and `state` stays as it
  was.

An instance without a place goes at once, without `ending`. `unreachable` is also the condition of a worker that was
silent past `--reschedule-grace`: see below. `gpustack servers` uses the word for a server that is not heard.

## When a worker falls silent

```
 heard ── 45 s (--heartbeat-timeout) ──► not_ready                ── 300 s (--reschedule-grace) ──► unreachable
   ▲                                     its running instances                                      they are pending,
   │                                     are unreachable                                            placed elsewhere
   └──────────── heard again: ready, and they run ◄──┘
```

- A running instance of a silent worker is `unreachable`: it is not counted in `ready_replicas` nor as running, and is
  asked only when no other replica is left, for it may be the server that is cut off. Its message names the worker, and
  so does the error of a request that nobody could answer.
- A worker that is heard again, as the same daemon, has its instances running again at once. One whose daemon or
  machine was started anew says itself what it finds running. A server that starts or takes the lead judges nobody by
  what was before.
- When more than half of the workers fall silent together it is more likely the server's network than theirs: nothing is
  placed elsewhere for another half hour.

## When a worker is stopped

```
 SIGTERM ──────────────────► not_ready, "its daemon was stopped" ── 30 s (--stopped-worker-grace) ──► placed elsewhere
   │                         its instances keep their places            if others take instances
   │ with --leave, or after
   │ gpustack workers drain NAME
   ▼
 draining: for one replica at a time, another is started elsewhere; when that runs, the one here ends
   │
   ▼
 nothing is left here (or --leave-timeout is over) ──► the daemon ends
```

- A restart within the grace comes back to its places and files. While no other worker takes instances the places are
  kept longer, for nobody else could use them.
- `gpustack workers drain NAME` waits until the worker is empty; then stop the machine. What finds no room elsewhere
  goes on there, and the command says what it waits for. `gpustack workers uncordon NAME` ends the drain; Ctrl-C and a
  `--timeout` only end the waiting, and a server that is away for half a minute is waited for. Of a worker that is not
  heard nobody knows whether its engines have ended, and the command says so.
- `gpustack start --leave` makes each stop a drain; a second signal stops at once. Under systemd the daemon asks for the
  time that this may take.
- What is removed or scaled down while its worker is stopped goes at once: its engine has ended with the worker.
- A reload (SIGHUP) is no stop: engines go on.

## Moves

These are the only moves between states, who may make them, and when. Every write is checked against this table, and a
move that is not in it is refused with `Conflict`; a test reads the code for moves that the table lacks and for rows
that nobody makes.

| From | To | By | When |
| --- | --- | --- | --- |
"""


API = """\
# The HTTP API

<!-- Written by `make docs`. Change the routes, then run that again. -->

These are all routes of the server. What each takes and answers is in `/openapi.json`, shown at `/docs` and `/redoc`;
what an error looks like is in [errors.md](errors.md). Callers are told by an API key (`Authorization: Bearer ...`,
or `X-API-Key: ...` where there is no such header), by the cookie of a login, or by a worker's credentials.

`/v1/responses`, `/v1/messages` and `/v1/messages/count_tokens` are passed through to engines that have them; where one
has not, the answer is a 404 that says so. They give one answer to a request: `n` is refused there.

## Conventions

- Creating and changing answer 200 with the object, deleting 200 with `null`. A change writes only the fields that are
  sent; fields that are not known are ignored. Instants are ISO 8601 in UTC, sizes are bytes, and what could not be
  measured is left out or `null`, never 0.
- A list answers `{"items": [...], "pagination": {"page", "perPage", "total", "totalPage"}}`, the newest first. Its
  query takes `page`, `perPage` (or `page_size`; 1 to 100, or -1 for all), `search` (in any case), `sort_by` (fields
  with commas between, `-` before one for descending), and the filters of the resource. The header `X-Revision` names
  the state it shows.
- A list with `watch=true` is a stream: `{"type": 1, "data": {...}}` and a blank line for everything there is, then for
  every change; 1 is created, 2 updated, 3 deleted or no longer selected. A blank line comes at least every 15 seconds.
  With `sync=1` events carry their `revision`, and type 6 marks the end of what was there. With `since=` a revision, the
  stream goes on from there, or answers 410: list again. A client that reads too slowly is cut off.
- Loads of workers and GPUs (rates, used memory, temperatures, figures of file systems, uptime) are what was reported
  last. They are no changes: no `version`, `updated_at` or revision moves with them, and a stream of workers or GPUs
  tells those that have changed every 15 seconds, as updates. After a start of the server they are left out until the
  worker reports, which it does within a minute; another server may know them up to 15 seconds later.
- `GET /v1/models` answers OpenAI's clients too: `object` and `data` stand beside `items` and `pagination`. People who
  are not administrators see of a model what they need to use it.
- `access_policy` of a model says who may use it: `public` (anybody, also without a key), `authed` (whoever has an
  account; so unless said), or `allowed_users` (the ids in the field of that name). Administrators may use all. A model
  that is not for the caller is in no list and answers 404 as if there were none. Who shows no credentials may list
  public models and use them, with bodies of 4 MiB at most, and gets 401 for everything else.
- An API key may be made narrower than its owner: `scopes` names one or more of `inference` (use models, and list them),
  `read` (read of the management) and `management` (read and change), `allowed_model_names` (100 at most) the only
  models there are for it; `null` is everything that the owner may. An account has 200 keys at most. `PUT` changes a
  key, also its `is_enabled` and, by `expires_in`, its end. With a key nobody gives another one more scopes, models or
  time than it has itself; a key with limits makes none that uses models, and does not loosen its own. Everybody lists
  their own keys; administrators those of others too, with `user_id=` or `all=true`, and may switch them off and
  delete them; an owner may switch one on again.
- A login of a browser is a session: `/v1/users/me/sessions` lists one's own and ends one or all, administrators end
  those of others. Another password, role or state of an account ends them too. Whatever goes on for somebody (a watch,
  a log, an answer of a model) is cut off within a second when the account, key or login that let it in is no more, or
  when the model is for others now. `last_used_at` of a key is right to a minute or so.
- Requests from this machine need no credentials unless `--force-auth-localhost` is set: the peer must be loopback, the
  `Host` a name of this machine, no header may say that a proxy forwarded it, and no page of another site may have sent
  it. What changes something by cookie or from this machine needs a same-origin `Origin`, or a body of
  `application/json`.
- Pages of other sites may read answers only with `--enable-cors`, from the origins of `--allow-origins`; with
  `--allow-credentials` those may act with a visitor's login too, never with a place on this machine.
- `/proxy` asks `huggingface.co` (or `HF_ENDPOINT`), `modelscope.cn` and `www.modelscope.cn` over https and no other
  place. The hub's token goes with it only to the hub, and only when an administrator reads.
- Five wrong passwords for a name from one address close the door to both for five minutes (429). An account that must
  change its password can do nothing else that changes anything.
- Instances follow from their model: they are deleted by hand, but neither created nor changed.
"""


OPTIONS = """
<!-- Written by `make docs`. Change gpustack/config/options.py or tests/options/proof.py, then run that again. -->

Each row names the test that sets it on a running daemon, in each of its spellings, and sees its effect from outside:
`make test PYTEST_ARGS="<test>"` runs it.
"""


METRICS = """\
# Metrics

<!-- Written by `make docs`. Change gpustack/metrics/registry.py, then run that again. -->

The server exports metrics on `--metrics-port` (10161), each worker on `--worker-metrics-port` (10151), until
`--disable-metrics` or `--disable-worker-metrics` says otherwise. They are plain HTTP without credentials: reach them
over a network you trust. The worker inside a server listens on the loopback, unless `--worker-ip` is set.

- `/metrics` on both, as Prometheus text or OpenMetrics, whichever the scraper asks for.
- `/metrics/targets` on the server lists the workers' exporters, for Prometheus' HTTP service discovery.
- `/metrics/ray` shows Ray's own metrics of that machine; `/metrics/targets/ray` of the server lists them (ray.md).
- `/metrics/raw` on a worker shows what its engines say under their own names, with whose it is.

A page is made when it is asked for and holds for a second, with engines for three; nothing is measured while nobody
asks. What is gone (a model, an instance, a worker, an accelerator) is gone from the next page; what could not be
measured is left out. `promtool check metrics` has nothing to say of them but that names should not contain a colon:
these are the names that dashboards for GPUStack know. A dashboard, alerts and an example of a scrape configuration are
in `contrib/monitoring`.
"""

RUNTIME = """\

An engine is asked on the loopback by its worker, for 3 seconds and 2 MiB at most. Its own labels are kept; one that
is called as one of ours is shown as `exported_`*name*. An engine that has no family for a metric does not have it;
vLLM, for example, counts hits of the prefix cache, where SGLang and MindIE say a rate. Which family becomes which is
said by the engines' descriptions, and can be replaced. Tokens mean the same whichever engine counts them:
`gpustack:prompt_tokens_total` has prompt tokens that came out of a cache in it. vLLM and SGLang count so themselves;
llama.cpp counts those apart (`llamacpp:prompt_tokens_cached_total`), and they are added.

- `GET /v1/metrics/default-config` shows the mapping that GPUStack comes with, `GET /v1/metrics/config` the one in
  force, and `POST /v1/metrics/config` replaces it, for administrators. `{}` brings the default back.
- It is kept in `custom_metrics_config.yaml` in the data directory, which may also be edited by hand. A file that
  cannot be used is named in the log, and the default holds.
- `gpustack_metrics` names what is shown, each with its `type` (Gauge, Counter, Histogram or Summary) and
  `description`; counters get `_total` by themselves. `runtime_mapping` has for each backend, and in it for each range
  of versions such as `>=0.9,<1` or `*` for any, the engine's families with what they become. Beside `*` the first
  range counts that fits the version the deployment pins, else the one installed.
- Workers ask the server for the mapping when they are scraped, every 15 seconds at most; while the server is away the
  last one holds.
- A deployment with a command of its own (`custom`) is read by all default mappings whose names tell their engine, so
  vLLM and SGLang started that way are shown too.
"""


def rows(document: str) -> set[tuple[str, ...]]:
    """Every row of every table of a document, its cells without code marks; heads and rules left out."""
    found = set()
    lines = (DOCS / document).read_text().splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        is_rule, is_head = re.match(r"\|[\s:|-]+$", line), re.match(r"\|[\s:|-]+$", following)
        if line.startswith("|") and not is_rule and not is_head:
            found.add(tuple(cell.strip().strip("`") for cell in line.strip().strip("|").split(" | ")))
    return found


def words(document: str) -> set[str]:
    """Everything a document sets as code."""
    return set(re.findall(r"`([^`\n]+)`", (DOCS / document).read_text()))


def lifecycle() -> str:
    """The text of docs/lifecycle.md."""
    from gpustack.domain.lifecycle import TRANSITIONS

    moves = [(t.source.value, t.target.value, t.by.value, t.when) for t in TRANSITIONS]
    return LIFECYCLE + _table(moves)


def api() -> str:
    """The text of docs/api.md."""
    from gpustack.api.resource import all_routes
    from gpustack.gateway.path import INFERENCE_PATHS

    users = ("admin", "anybody", "user")
    tables: dict[str, list[tuple[str, ...]]] = {"inference": []}
    for one in INFERENCE_PATHS:
        tables["inference"].append((f"`POST {one.path}`", one.summary, ", ".join(users)))
    for route in all_routes():
        callers = "anyone" if route.allow is None else ", ".join(sorted(role.value for role in route.allow))
        tables.setdefault(route.tag, []).append((f"`{route.method} {route.path}`", route.summary, callers))
    head = "| Route | What it does | Who may call it |\n| --- | --- | --- |\n"
    return API + "".join(f"\n## {tag}\n\n{head}{_table(lines)}" for tag, lines in tables.items())


def metrics() -> str:
    """The text of docs/metrics.md."""
    from gpustack.metrics.registry import METRICS as ALL
    from gpustack.metrics.registry import MetricScope

    told = {
        MetricScope.SERVER: "The server",
        MetricScope.WORKER: "Workers",
        MetricScope.RUNTIME: "Engines",
        MetricScope.PROCESS: "Both",
    }
    text = METRICS
    for scope, title in told.items():
        lines = [
            (
                f"`{one.name}`",
                one.kind.value,
                ", ".join(f"`{name}`" for name in one.labels) or "none",
                one.help,
            )
            for one in ALL
            if one.scope is scope
        ]
        text += f"\n## {title}\n" + (RUNTIME if scope is MetricScope.RUNTIME else "")
        text += "\n| Metric | Kind | Labels | What it tells |\n| --- | --- | --- | --- |\n" + _table(lines)
    return text


def options() -> str:
    """The text of docs/options.md: what the program says itself, and the test that shows each row."""
    from gpustack.config.rendering import markdown
    from tests.options.proof import MODEL_VARIABLES, PROOFS, TO_DO, VARIABLES

    every = {**PROOFS, **VARIABLES, **MODEL_VARIABLES}
    title, rest = markdown({name: test for name, test in every.items() if test != TO_DO}).split("\n", 1)
    return f"{title}\n{OPTIONS}{rest}"


WRITERS = {"api": api, "lifecycle": lifecycle, "metrics": metrics, "options": options}


def _table(cells: Iterable[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.documents", description=__doc__)
    parser.add_argument("document", choices=sorted(WRITERS))
    print(WRITERS[parser.parse_args().document](), end="")


if __name__ == "__main__":
    main()
