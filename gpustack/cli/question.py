"""Reads questions from the terminal: lines, blocks of lines, and commands such as ``/bye``."""

from __future__ import annotations

import contextlib
import re
import select
import sys
from types import ModuleType

import attrs

from gpustack.cli.command_line import suggestion
from gpustack.cli.history import ChatHistory
from gpustack.cli.terminal import Terminal

PROMPT, MORE = ">>> ", "... "
FENCE = '"""'
_PASTE_GAP = 0.05
"""Seconds within which the lines of a pasted block follow each other."""
_LONGEST = 8 << 20

COMMANDS = {
    "quit": ("\\q", "\\quit", "/bye", "/quit", "/exit"),
    "clear": ("\\c", "\\clear", "/clear"),
    "stats": ("\\s", "\\stats", "/stats"),
    "help": ("\\h", "\\help", "\\?", "/?", "/help"),
}
"""The commands of a chat, with their spellings."""

_BY_SPELLING = {spelling: name for name, spellings in COMMANDS.items() for spelling in spellings}
# A path, a comment or a formula begins like this too: a word with more behind it is a question.
_WORD = re.compile(r"/[A-Za-z?][\w-]*(?=\s|$)|\\[A-Za-z?]+(?=\s*$)")


@attrs.frozen
class Question:
    """A text for the model."""

    text: str


@attrs.frozen
class ChatCommand:
    """One of ``COMMANDS``; for an unknown one ``name`` is empty, and ``advice`` is what to tell the person."""

    name: str
    advice: str = ""


def parse_line(text: str) -> Question | ChatCommand:
    """What was typed, as a question or a command. Several lines are always a question."""
    line = text.strip()
    if line in _BY_SPELLING:
        return ChatCommand(_BY_SPELLING[line])
    found = None if "\n" in line else _WORD.match(line)
    if found is None:
        return Question(line)
    word = found.group()
    if word in _BY_SPELLING:
        return ChatCommand("", f"{word} takes nothing behind it.")
    guess = suggestion(word, _BY_SPELLING, "/? lists what there is.")
    return ChatCommand(
        "", f"There is no {word}; {guess} To ask it as it is, put it between lines of {FENCE}."
    )


@attrs.define(eq=False)
class QuestionReader:
    """Asks a person for lines. ``aside`` is where remarks go; without ``history`` nothing is kept."""

    aside: Terminal
    history: ChatHistory | None = None
    _readline: ModuleType | None = None
    _interrupted: bool = False

    def __attrs_post_init__(self) -> None:
        """Make input() edit lines and remember them, where both ends are terminals and this Python can."""
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            return
        with contextlib.suppress(ImportError):
            import readline

            self._readline = readline
            readline.set_auto_history(False)  # a block of several lines is one question
            if self._is_gnu:
                readline.parse_and_bind("set enable-bracketed-paste on")
            self._remember()

    def read(self) -> Question | ChatCommand | None:
        """The next question or command; ``None`` at the end of input. Ctrl-C only discards what is typed."""
        while True:
            try:
                read = self._typed()
            except EOFError:
                self._new_line()
                return None
            except KeyboardInterrupt:
                self._new_line()
                self._say_how_to_leave()
                continue
            if isinstance(read, Question):
                self._keep(read.text)
            if read is not None:
                self._interrupted = False
                return read

    def _typed(self) -> Question | ChatCommand | None:
        """What is typed next; ``None`` for an empty line or block."""
        first = self._line(PROMPT)
        begun = first.lstrip()
        if begun.startswith(FENCE):
            text = self._block(begun[len(FENCE) :])
            return Question(text.strip("\n")) if text.strip() else None
        return parse_line(first) if begun else None

    def _block(self, text: str) -> str:
        """All lines to the next fence; empty for a block that has no end or is too large."""
        while not text.rstrip().endswith(FENCE):
            try:
                text += "\n" + self._line(MORE)
            except EOFError:
                self._new_line()
                self.aside.say(f"The block was not ended by {FENCE}, and is not sent.")
                return ""
            if len(text) > _LONGEST:
                self.aside.say(f"The block is larger than {_LONGEST >> 20} MiB, and is not sent.")
                return ""
        return text.rstrip()[: -len(FENCE)]

    def _say_how_to_leave(self) -> None:
        if not self._interrupted:
            self.aside.say("(Ctrl-D or /bye leaves.)")
        self._interrupted = True

    def _line(self, prompt: str) -> str:
        """One line, or a pasted block. Raises EOFError and KeyboardInterrupt."""
        if self._readline is None:
            # input() would write its prompt to stdout, among the answers.
            sys.stderr.write(prompt)
            sys.stderr.flush()
            line = sys.stdin.readline()
            if not line:
                raise EOFError
            line = line.rstrip("\n")
        else:
            line = input(prompt)
        return line if self._is_gnu else line + _rest_of_paste()

    @property
    def _is_gnu(self) -> bool:
        """Whether this is GNU readline, which returns a pasted block as one line; libedit (macOS) does not."""
        return self._readline is not None and "libedit" not in (self._readline.__doc__ or "")

    def _remember(self) -> None:
        if self.history is None or self._readline is None:
            return
        try:
            for question in self.history.load():
                self._readline.add_history(question)
        except OSError as error:
            self._no_history(error)

    def _keep(self, question: str) -> None:
        if self._readline is not None:
            self._readline.add_history(question)
        if self.history is None:
            return
        try:
            self.history.add(question)
        except OSError as error:
            self._no_history(error)

    def _no_history(self, error: OSError) -> None:
        assert self.history is not None
        self.aside.say(f"Questions are not kept: {self.history.path}: {error.strerror}")
        self.history = None

    def _new_line(self) -> None:
        self.aside.stream.write("\n")
        self.aside.stream.flush()


def _rest_of_paste() -> str:
    """The lines that follow a first one faster than anybody types: the rest of a pasted block."""
    text = ""
    try:
        while len(text) < _LONGEST and select.select([sys.stdin], [], [], _PASTE_GAP)[0]:
            line = sys.stdin.readline()
            if not line:
                break
            text += "\n" + line.rstrip("\n")
    except (OSError, ValueError):
        return text
    return text
