"""A conversation with a model in the terminal, or one question."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from gpustack.cli.history import ChatHistory
from gpustack.cli.question import ChatCommand, Question, QuestionReader
from gpustack.cli.session import ServerSession
from gpustack.cli.terminal import Terminal, harmless
from gpustack.errors import TooManyRequests, Unavailable

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

_ATTEMPTS = 5
_LONGEST_WAIT = 10.0
_STDIN_LIMIT = 8 << 20

HELP = """\
\\q, \\quit or /bye       leave (so does Ctrl-D)
\\c, \\clear or /clear    forget what was said
\\s, \\stats or /stats    tell tokens per second after each answer, or no longer
\\h, \\help, \\? or /?     this list
\"""                     begins and ends a question of several lines; a pasted block is one question
Ctrl-C                  throws away the line, or stops the answer; what was said before stays"""


@attrs.define(eq=False, kw_only=True)
class ChatSession:
    """A conversation with one model. Answers go to ``out`` as they come, everything else to ``aside``."""

    session: ServerSession
    model: str
    out: Terminal
    aside: Terminal
    system: str | None = None
    options: Mapping[str, Any] = attrs.field(factory=dict)
    history: ChatHistory | None = None
    stats: bool = False
    """Tell after each answer how fast it came."""
    _messages: list[dict[str, str]] = attrs.field(factory=list)

    def once(self, prompt: str) -> None:
        """Ask, and print the answer as it comes. Raises what the server refuses with, as a GpustackError.

        After Ctrl-C the part of the answer that had come belongs to the conversation.
        """
        question, answer = {"role": "user", "content": prompt}, _Answer(self.out)
        said = [*self._messages, question]
        try:
            self.session.run(lambda client: self._ask(client, said, answer))
        finally:
            if text := answer.end():
                self._messages = [*said, {"role": "assistant", "content": text}]
        if self.stats and (told := answer.speed()):
            self.aside.say(told)

    def interactive(self) -> None:
        """Read questions and ask them until the person leaves. A failed answer is told and ends nothing."""
        reader = QuestionReader(self.aside, self.history)
        self.aside.say(f"Talking to {self.model}; \\h for help.")
        while (read := reader.read()) is not None:
            if isinstance(read, Question):
                self._turn(read.text)
            elif read.name == "quit":
                return
            else:
                self._obey(read)

    def _obey(self, command: ChatCommand) -> None:
        if command.name == "clear":
            self._messages.clear()
            self.aside.say("Forgotten.")
        elif command.name == "stats":
            self.stats = not self.stats
            self.aside.say("Answers are timed." if self.stats else "Answers are timed no longer.")
        else:
            self.aside.say(command.advice or HELP)

    def _turn(self, line: str) -> None:
        from gpustack.errors import GpustackError

        try:
            self.once(line)
        except KeyboardInterrupt:
            self.aside.say("(stopped)")
        except GpustackError as error:
            self.aside.say(f"gpustack: {error}")

    async def _ask(self, client: AdminClient, said: list[dict[str, str]], answer: _Answer) -> None:
        import trio

        first = [{"role": "system", "content": self.system}] if self.system else []
        document = {"model": self.model, "messages": [*first, *said], **self.options}
        if self.stats:
            document["stream_options"] = {"include_usage": True}
        attempt = 0
        while True:
            answer.asked_at = time.monotonic()
            try:
                async with client.chat(document) as chunks:
                    async for chunk in chunks:
                        answer.take(chunk)
                return
            except (Unavailable, TooManyRequests) as error:
                attempt += 1
                if answer.begun or attempt >= _ATTEMPTS or _is_used_up(error):
                    raise
                if attempt == 1:
                    self.aside.say(f"{str(error).rstrip('.')}; asking again")
                wait = error.retry_after if error.retry_after is not None else 2.0 ** (attempt - 1)
                await trio.sleep(min(wait, _LONGEST_WAIT))


def _is_used_up(error: Unavailable | TooManyRequests) -> bool:
    """Whether a limit is reached that is not worth waiting for: it tells no time to wait, or a long one."""
    if not isinstance(error, TooManyRequests):
        return False
    return error.retry_after is None or error.retry_after > _LONGEST_WAIT


@attrs.define(eq=False)
class _Answer:
    """Prints an answer as it comes; what the model thinks is printed dimly, and on a terminal alone."""

    _out: Terminal
    begun: bool = False
    asked_at: float = 0.0
    _said: list[str] = attrs.field(factory=list)
    _thinking: bool = False
    _first_at: float | None = None
    _last_at: float | None = None
    _usage: Mapping[str, Any] | None = None

    def take(self, chunk: Mapping[str, Any]) -> None:
        if isinstance(usage := chunk.get("usage"), dict):
            self._usage = usage
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or choice.get("message") or {}
            if delta.get("content") or delta.get("reasoning_content"):
                self._last_at = time.monotonic()
                self._first_at = self._first_at or self._last_at
            if thought := delta.get("reasoning_content"):
                self._think(str(thought))
            if text := delta.get("content"):
                if self._thinking:
                    self._out.stream.write("\n\n")
                    self._thinking = False
                self.begun = True
                self._said.append(str(text))
                # A program gets the text as it is; a terminal gets it without codes that would steer it.
                self._out.stream.write(harmless(str(text)) if self._out.live else str(text))
        self._out.stream.flush()

    def _think(self, text: str) -> None:
        # A program that reads our output wants the answer alone.
        if self._out.live:
            self.begun = self._thinking = True
            self._out.stream.write(self._out.style(text, "dim"))

    def end(self) -> str:
        """End the line; returns the whole answer."""
        if self.begun:
            self._out.stream.write("\n")
            self._out.stream.flush()
        return "".join(self._said)

    def speed(self) -> str | None:
        """Tokens and their speed, as the server measured them or else as they came here; ``None`` if nothing came."""
        if self._usage is None or self._first_at is None or self._last_at is None:
            return None
        count = self._usage.get("completion_tokens")
        if not isinstance(count, int):
            return None
        rate, waited = self._usage.get("tokens_per_second"), self._usage.get("time_to_first_token_ms")
        # The time to the first token is told apart, so only the others count.
        took = self._last_at - self._first_at
        if not isinstance(rate, int | float) and count > 1 and took > 0:
            rate = (count - 1) / took
        first = waited / 1000 if isinstance(waited, int | float) else self._first_at - self.asked_at
        told = [f"{count} tokens", f"first after {first:.2f} s", f"{self._usage.get('prompt_tokens')} read"]
        if isinstance(rate, int | float):
            told.insert(1, f"{rate:.1f} tokens/s")
        return f"({', '.join(told)})"


def piped_prompt() -> str | None:
    """What another program writes to stdin; ``None`` where stdin is a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        return None
    return sys.stdin.read(_STDIN_LIMIT).strip()


def converse(talk: ChatSession, prompt: str | None) -> None:
    """Ask ``prompt``, else what is piped in, else talk with the person at the terminal."""
    if prompt is None:
        prompt = piped_prompt()
    if prompt is None:
        talk.interactive()
    elif prompt:
        talk.once(prompt)


def is_chat_model(model: Mapping[str, Any]) -> bool:
    """Whether a model is a chat model; one of unknown kind counts as one."""
    categories = model.get("categories") or ["llm"]
    return "llm" in categories or "unknown" in categories


_CALLS = {
    "embedding": ("embeddings", '"input": "some text"'),
    "reranker": ("rerank", '"query": "a question", "documents": ["one", "another"]'),
    "image": ("images/generations", '"prompt": "a lighthouse"'),
    "text_to_speech": ("audio/speech", '"input": "some text", "voice": "default"'),
}


def how_to_call(model: Mapping[str, Any], url: str, *, key: bool) -> str:
    """How to call a model that is no chat model: a command line of curl."""
    kinds = [kind for kind in model.get("categories") or () if kind in _CALLS]
    if "speech_to_text" in (model.get("categories") or ()):
        # What is uploaded is a form, which a page of another site could send too: without a key it is refused.
        return (
            f"{model['name']} is not a chat model (speech_to_text); call it so, with a key of gpustack keys create:\n"
            f'  curl {url}/v1/audio/transcriptions -H "Authorization: Bearer $GPUSTACK_API_KEY" \\\n'
            f"    -F model={model['name']} -F file=@talk.mp3"
        )
    if not kinds:
        return f"{model['name']} is not a chat model ({', '.join(model.get('categories') or ())})."
    path, fields = _CALLS[kinds[0]]
    header = ' -H "Authorization: Bearer $GPUSTACK_API_KEY"' if key else ""
    return (
        f"{model['name']} is not a chat model ({kinds[0]}); call it so:\n"
        f"  curl {url}/v1/{path}{header} -H 'Content-Type: application/json' \\\n"
        f'    -d \'{{"model": "{model["name"]}", {fields}}}\''
    )
