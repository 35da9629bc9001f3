"""What a detector asked and was told, as plain JSON values: written while it looks, and played back to it later."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import attrs

from gpustack.hardware.probe import NOT_INSTALLED, CallAnswer, DeviceProbe, ToolAnswer

Doc = Mapping[str, Any]
T = TypeVar("T")


@attrs.define(eq=False)
class RecordingProbe:
    """Passes questions on, and tells of each before it is asked, which may hang, and after it is answered."""

    _probe: DeviceProbe
    _tell: Callable[[Doc], None]

    def run(self, tool: str, *arguments: str, file: str | None = None) -> ToolAnswer:
        question = {"run": [tool, *arguments], **({} if file is None else {"file": file})}
        answer = self._asked(question, lambda: self._probe.run(tool, *arguments, file=file))
        self._tell({"asked": {**question, **_without_defaults(answer)}})
        return answer

    def read(self, path: str) -> str | None:
        answer = self._asked({"read": path}, lambda: self._probe.read(path))
        self._tell({"asked": {"read": path, "text": answer}})
        return answer

    def names(self, path: str) -> tuple[str, ...]:
        answer = self._asked({"names": path}, lambda: self._probe.names(path))
        self._tell({"asked": {"names": path, "found": list(answer)}})
        return answer

    def call(self, function: str, *arguments: Any) -> CallAnswer:
        question = {"call": function, "with": list(arguments)}
        answer = self._asked(question, lambda: self._probe.call(function, *arguments))
        self._tell({"asked": {**question, **_without_defaults(answer)}})
        return answer

    def _asked(self, question: Doc, ask: Callable[[], T]) -> T:
        self._tell({"asking": question})
        return ask()


@attrs.define(eq=False)
class ReplayProbe:
    """Answers as was recorded. What was not asked then is not installed, not there, or not supported."""

    _answers: Mapping[tuple[Any, ...], Doc]

    @classmethod
    def of(cls, asked: Iterable[Doc]) -> ReplayProbe:
        return cls({_key(one): one for one in asked})

    def run(self, tool: str, *arguments: str, file: str | None = None) -> ToolAnswer:
        found = self._answers.get(("run", tool, *arguments))
        if found is None:
            return NOT_INSTALLED
        return ToolAnswer(
            out=str(found.get("out", "")),
            fault=found.get("fault"),
            is_installed=found.get("is_installed", True),
        )

    def read(self, path: str) -> str | None:
        found = self._answers.get(("read", path), {})
        return found.get("text")

    def names(self, path: str) -> tuple[str, ...]:
        return tuple(self._answers.get(("names", path), {}).get("found", ()))

    def call(self, function: str, *arguments: Any) -> CallAnswer:
        found = self._answers.get(("call", function, *arguments))
        if found is None:
            return CallAnswer(error="NotSupported", said="not in the recording")
        return CallAnswer(value=found.get("value"), error=found.get("error"), said=str(found.get("said", "")))


def _key(asked: Doc) -> tuple[Any, ...]:
    if "run" in asked:
        return ("run", *asked["run"])
    if "call" in asked:
        return ("call", asked["call"], *asked["with"])
    kind = "read" if "read" in asked else "names"
    return (kind, asked.get(kind))


def _without_defaults(answer: Any) -> Doc:
    default = type(answer)()
    return {name: value for name, value in attrs.asdict(answer).items() if value != getattr(default, name)}
