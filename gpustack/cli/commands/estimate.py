"""Estimate the memory that a model takes, and how it would run on given GPUs.

Usage:
  gpustack estimate [options] [-p ARG]... [--gpu=GPUS]... SOURCE

SOURCE is a path, a repository of Hugging Face (ORGANISATION/REPOSITORY[:TAG or :FILE]) or ModelScope
(ms:ORGANISATION/REPOSITORY), or a model of the Ollama library (ollama:NAME:TAG). Only headers are read, with the hubs,
tokens and proxies of this environment, and no server is asked. Figures and decisions are the scheduler's, for an empty
machine; runs may have taught a cluster better.

Options:
  --ctx=TOKENS       Tokens of context of one request (default: 8192, or less if it was made for less).
  --kv=TYPE          Type of the KV cache, such as f16, q8_0 or q4_0, or fp8 for vllm (default: the engine's).
  --slots=NUMBER     Requests at a time (default: as many as fit, up to the engine's usual).
  --backend=ENGINE   The engine (default: the one that a deployment gets).
  -o, --output=FORM  table, json or yaml (default: table).
  -h, --help         Show this help.

May be repeated:
  -p, --param=ARG    An argument for the engine, as for gpustack run.
  --gpu=GPUS         A machine with these: a kind or a size such as RTX4090 or 24GiB, several as 2xH100, with +SIZE for
                     its memory (4xRTX4090+256GiB).
"""

from __future__ import annotations

import random
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpustack.cli import output, phrase
from gpustack.cli.command_line import read
from gpustack.cli.failure import FAILED
from gpustack.cli.output import Row
from gpustack.cli.session import Doc, run_alone
from gpustack.cli.source import ModelReference, read_source
from gpustack.cli.terminal import Terminal, stderr, stdout
from gpustack.errors import NotFound

if TYPE_CHECKING:
    from gpustack.config.loader import Configuration
    from gpustack.domain.artifact import ModelSource
    from gpustack.domain.facts import ModelFacts

_TERMS = ("weights", "cache", "compute", "graphs", "process", "kept")
_PLACES = {"host": "RAM", "devices": "VRAM"}


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print what it takes, part by part, and for each machine whether and how it fits; 1 if it fits on none of them."""
    command_line = read(__doc__, "estimate", argv)
    given = tuple(text if text.startswith("-") else f"--{text}" for text in command_line.many("--param"))
    context = command_line.whole("--ctx", least=1)
    slots = command_line.whole("--slots", least=1, most=1024)
    command_line.choice("--output", *output.FORMS)  # refused before anything is read
    aside = stderr(env)
    source, facts = _facts(command_line.required("SOURCE"), env, aside)
    from gpustack.cli.estimation import EstimateRequest, estimated

    asked = EstimateRequest(
        source=source,
        facts=facts,
        backend=command_line.text("--backend"),
        parameters=given,
        context=context,
        cache_type=command_line.text("--kv"),
        slots=slots,
    )
    found = estimated(asked, command_line.many("--gpu"))
    output.show(command_line, found, lambda: "\n".join(_told(found, stdout(env))))
    return 0 if any(one["fits"] is not False for one in found["places"]) else FAILED


def _facts(text: str, env: Mapping[str, str], aside: Terminal) -> tuple[ModelSource, ModelFacts]:
    """What the header of the source says. Raises GpustackError where there is none to be read."""
    from gpustack.cli.installation import load_options

    asked = read_source(text, Path.cwd())
    if asked is None:
        raise NotFound(
            f"{text} names nothing that can be read: write a path, ORGANISATION/REPOSITORY[:TAG] or ollama:NAME:TAG"
        )
    if asked.is_absent:
        raise NotFound(f"There is no {asked.fields['local_path']} on this machine")
    loaded = load_options([], env)
    aside.draw(f"reading the header of {asked.repo or asked.name}")
    try:
        return run_alone(_read, asked, loaded, aside)
    finally:
        aside.clear()


async def _read(
    asked: ModelReference, loaded: Configuration, aside: Terminal
) -> tuple[ModelSource, ModelFacts]:
    from gpustack.cli.daemon.model_file import facts_reader
    from gpustack.cli.hub_listing import listed_files
    from gpustack.cli.repository import meant
    from gpustack.domain.artifact import ModelSource, SourceKind

    fields, remark = asked.fields, ""
    if asked.repo is not None:
        files = await listed_files(asked, loaded)
        fields, remark = meant(asked, files)
    if remark:
        aside.say(remark)
    rest = {name: value for name, value in fields.items() if name != "source"}
    source = ModelSource(kind=SourceKind(fields["source"]), **rest)
    return source, await facts_reader(loaded, random.Random())(source)


def _told(found: Doc, terminal: Terminal) -> Iterator[str]:
    for line in _wrapped(_model(found), terminal):
        yield terminal.style(line, "bold")
    yield from _wrapped(_settings(found), terminal)
    if found["note"]:
        yield from _wrapped(str(found["note"]), terminal)
    places = [one for one in found["places"] if one["fits"] is not False]
    if places:
        yield ""
        yield _table(places, terminal)
    for one in found["places"]:
        yield from _verdict(one, terminal)
    if found["kinds"]:
        kinds = f"One GPU holds all of it: {', '.join(found['kinds'])} and larger; --gpu shows how it runs on others."
        yield from _wrapped(kinds, terminal)
    elif any(one["fits"] is None for one in found["places"]):
        yield "--gpu shows how it runs on given GPUs."


def _model(found: Doc) -> str:
    model = found["model"]
    count = model["parameters"]
    parts = [
        model["architecture"],
        None if count is None else f"{_short(count)} parameters",
        model["quantisation"],
        None if model["layers"] is None else f"{model['layers']} layers",
        None if model["context_length"] is None else f"made for {model['context_length']} tokens",
        None if model["file_size"] is None else f"{phrase.size(model['file_size'])} of files",
    ]
    return f"{found['source']}: {', '.join(str(part) for part in parts if part)}"


def _short(count: int) -> str:
    """``8.2 B`` parameters."""
    for size, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M")):
        if count >= size:
            return f"{count / size:.1f} {letter}"
    return str(count)


def _settings(found: Doc) -> str:
    own = found["settings"]
    parts = [f"{found['engine']}"]
    if own["context"] is not None:
        parts.append(f"{own['context']} tokens of context for each request")
    if own["slots"] is not None:
        parts.append(f"{own['slots']} {'request' if own['slots'] == 1 else 'requests'} at a time")
    if own["cache_type"] is not None:
        parts.append(f"a cache of {own['cache_type']}")
    return ", ".join(parts)


def _table(places: Sequence[Doc], terminal: Terminal) -> str:
    """A row for the video memory and one for the memory of each place, part by part."""
    used = [term for term in _TERMS if any(term in one["parts"][side] for one in places for side in _PLACES)]
    rows = []
    for one in places:
        name = str(one["place"])
        for side, total in (("devices", sum(one["video_memory"])), ("host", one["memory"])):
            if not total:
                continue
            parts = one["parts"][side]
            sizes = [phrase.size(parts[term]) if term in parts else "-" for term in used]
            rows.append(Row([name, _PLACES[side], *sizes, phrase.size(total)]))
            name = ""
    heads = ("ON", "OF", *(term.upper() for term in used), "TOTAL")
    return output.draw_table(heads, rows, terminal)


def _verdict(one: Doc, terminal: Terminal) -> Iterator[str]:
    """How it runs there, each GPU by itself."""
    sizes = one["video_memory"]
    if one["fits"] is None:
        if len(sizes) > 1 and len(set(sizes)) > 1:
            yield f"{one['place']}: {', '.join(map(phrase.size, sizes))}"
        return
    if not one["fits"]:
        told = _wrapped(f"{one['place']}: does not fit: {phrase.one_line(one['why'])}", terminal)
        yield from (terminal.style(line, "red") for line in told)
        if one["smallest_change"]:
            yield from _wrapped(f"  To make it fit: {one['smallest_change']}", terminal)
        return
    first, *others = _wrapped(f"{one['place']}: fits, {_how(one)}", terminal)
    yield first.replace(": fits", f": {terminal.style('fits', 'green')}", 1)
    yield from others
    for number, (size, free) in enumerate(zip(sizes, one["free"], strict=False)):
        yield f"  GPU {number}: {phrase.size(size)} of {phrase.size(free)} free"
    if (one["longest_context"] or 0) > (one["context"] or 0):
        yield f"  one request at a time could have {one['longest_context']} tokens of context"
    if one["assumed_memory"] and (not sizes or (one["layers"] or 0) < (one["total_layers"] or 0)):
        yield f"  the machine is taken to have {phrase.size(one['assumed_memory'])} of memory; +SIZE says another"
    if one["note"]:
        yield from _wrapped(f"  {phrase.one_line(one['note'])}", terminal)


def _wrapped(text: str, terminal: Terminal) -> list[str]:
    """It in lines that fit where a person reads them."""
    if not terminal.live:
        return [text]
    return textwrap.wrap(
        text, terminal.width, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False
    )


def _how(one: Doc) -> str:
    if not one["video_memory"]:
        return "on the processor"
    layers, of = one["layers"], one["total_layers"]
    parts = []
    if layers is not None and of is not None:
        parts.append(
            "all layers on GPUs" if layers >= of else f"{layers} of {of} layers on GPUs, the rest beside"
        )
    if one["slots"] is not None:
        parts.append(f"{one['slots']} {'request' if one['slots'] == 1 else 'requests'} at a time")
    if one["context"] is not None:
        parts.append(f"{one['context']} tokens for each")
    return ", ".join(parts) or "on GPUs"
