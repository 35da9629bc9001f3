"""A conversation with a model in the terminal, or one question."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from gpustack.cli.session import Session
from gpustack.cli.terminal import Terminal, harmless
from gpustack.errors import TooManyRequests, Unavailable

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

_PROMPT = ">>> "
_ATTEMPTS = 5
_LONGEST_WAIT = 10.0
_STDIN_LIMIT = 8 << 20

HELP = """\
\\q, \\quit or /bye   leave (so do Ctrl-D, and Ctrl-C at the prompt)
\\c, \\clear or /clear   forget what was said
\\h, \\help, \\? or /?   this list
Ctrl-C while the model answers stops the answer."""

_QUIT = frozenset({"\\q", "\\quit", "/bye", "/quit", "/exit"})
_CLEAR = frozenset({"\\c", "\\clear", "/clear"})
_HELP = frozenset({"\\h", "\\help", "\\?", "/?", "/help"})


@attrs.define(eq=False, kw_only=True)
class Talk:
    """What was said so far. Answers go to ``out`` as they come, everything else to ``aside``."""

    session: Session
    model: str
    out: Terminal
    aside: Terminal
    system: str | None = None
    options: Mapping[str, Any] = attrs.field(factory=dict)
    _messages: list[dict[str, str]] = attrs.field(factory=list)

    def once(self, prompt: str) -> None:
        """Ask, and print the answer as it comes; raises what the server says no with."""
        said = [*self._messages, {"role": "user", "content": prompt}]
        answer = self.session.run(lambda client: self._ask(client, said))
        self._messages = [*said, {"role": "assistant", "content": answer}]

    def interactive(self) -> None:
        """Ask what is typed until the end is. A failed answer is told and the conversation goes on."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # makes input() remember lines
        self.aside.say(f"Talking to {self.model}; \\h for help.")
        while True:
            try:
                line = input(_PROMPT).strip()
            except (EOFError, KeyboardInterrupt):
                print()
                return
            if line in _QUIT:
                return
            if line in _CLEAR:
                self._messages.clear()
                self.aside.say("Forgotten.")
            elif line in _HELP:
                self.aside.say(HELP)
            elif line:
                self._turn(line)

    def _turn(self, line: str) -> None:
        from gpustack.errors import GpustackError

        try:
            self.once(line)
        except KeyboardInterrupt:
            print()
        except GpustackError as error:
            self.aside.say(f"gpustack: {error}")

    async def _ask(self, client: AdminClient, said: list[dict[str, str]]) -> str:
        import trio

        first = [{"role": "system", "content": self.system}] if self.system else []
        document = {"model": self.model, "messages": [*first, *said], **self.options}
        attempt = 0
        while True:
            answer = _Answer(self.out)
            try:
                async with client.chat(document) as chunks:
                    async for chunk in chunks:
                        answer.take(chunk)
                return answer.end()
            except (Unavailable, TooManyRequests) as error:
                attempt += 1
                if answer.begun or attempt >= _ATTEMPTS:
                    answer.end()
                    raise
                if attempt == 1:
                    self.aside.say(f"{str(error).rstrip('.')}; asking again")
                wait = error.retry_after if error.retry_after is not None else 2.0 ** (attempt - 1)
                await trio.sleep(min(wait, _LONGEST_WAIT))


@attrs.define(eq=False)
class _Answer:
    """Prints an answer as it comes: what the model thinks dimly, what it says plainly."""

    _out: Terminal
    begun: bool = False
    _said: list[str] = attrs.field(factory=list)
    _thinking: bool = False

    def take(self, chunk: Mapping[str, Any]) -> None:
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if thought := delta.get("reasoning_content"):
                self._think(str(thought))
            if text := delta.get("content"):
                if self._thinking:
                    self._out.stream.write("\n\n")
                    self._thinking = False
                self.begun = True
                self._said.append(str(text))
                # A program gets what was said, a person's terminal is not the model's to steer.
                self._out.stream.write(harmless(str(text)) if self._out.live else str(text))
        self._out.stream.flush()

    def _think(self, text: str) -> None:
        # A program that reads us wants the answer alone.
        if self._out.live:
            self.begun = self._thinking = True
            self._out.stream.write(self._out.style(text, "dim"))

    def end(self) -> str:
        """The whole answer; the cursor goes to a new line."""
        if self.begun:
            self._out.stream.write("\n")
            self._out.stream.flush()
        return "".join(self._said)


def piped_prompt() -> str | None:
    """What another program wrote to our stdin; ``None`` when a person sits there."""
    if sys.stdin is None or sys.stdin.isatty():
        return None
    return sys.stdin.read(_STDIN_LIMIT).strip()


def converse(talk: Talk, prompt: str | None) -> None:
    """Ask ``prompt``, else what is piped in, else talk with whoever sits there."""
    if prompt is None:
        prompt = piped_prompt()
    if prompt is None:
        talk.interactive()
    elif prompt:
        talk.once(prompt)


def chats(model: Mapping[str, Any]) -> bool:
    """Whether a model can be talked to; one of unknown kind is tried."""
    categories = model.get("categories") or ["llm"]
    return "llm" in categories or "unknown" in categories


_CALLS = {
    "embedding": ("embeddings", '"input": "some text"'),
    "reranker": ("rerank", '"query": "a question", "documents": ["one", "another"]'),
    "image": ("images/generations", '"prompt": "a lighthouse"'),
    "text_to_speech": ("audio/speech", '"input": "some text", "voice": "default"'),
}


def how_to_call(model: Mapping[str, Any], url: str, *, key: bool) -> str:
    """How to use a model that cannot be talked to."""
    kinds = [kind for kind in model.get("categories") or () if kind in _CALLS]
    if not kinds:
        return f"{model['name']} is not a chat model ({', '.join(model.get('categories') or ())})."
    path, fields = _CALLS[kinds[0]]
    header = ' -H "Authorization: Bearer $GPUSTACK_API_KEY"' if key else ""
    return (
        f"{model['name']} is not a chat model ({kinds[0]}); call it so:\n"
        f"  curl {url}/v1/{path}{header} -H 'Content-Type: application/json' \\\n"
        f'    -d \'{{"model": "{model["name"]}", {fields}}}\''
    )
