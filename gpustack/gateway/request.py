"""A request: what its body asks for, and what has come of it so far. The body goes on unchanged but for one splice."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

import attrs
import orjson

from gpustack.domain.access import Principal
from gpustack.domain.route import Endpoint, ModelRoute, RerankForm
from gpustack.errors import BadRequest
from gpustack.gateway.choices import RequestedChoices
from gpustack.gateway.json_member import ESCAPED_LETTER, members, raw_members, whole_number
from gpustack.gateway.limiter import Permit
from gpustack.gateway.media import takes_long
from gpustack.gateway.meter import UsageMeter
from gpustack.gateway.path import InferencePath
from gpustack.gateway.token_bound import TokenBound, prompts_in
from gpustack.http1.exchange import Exchange
from gpustack.http1.fields import Headers
from gpustack.metrics.traffic import RequestMeasurement
from gpustack.server.memory_budget import MemoryReservation

LARGE: Final = 1 << 20
"""Bytes from which a body is not parsed as a whole, because its values could take many times its size in memory.
Reading a larger one may take tens of milliseconds: do it in a thread."""
LONG: Final = 64 << 10
"""Bytes from which going through the members of a body would delay other requests noticeably: do it in a thread."""

if TYPE_CHECKING:
    from gpustack.gateway.spooled_body import SpooledBody

_TIMES: Final = ("n", "n_cmpl")
_CHOICES: Final = (*_TIMES, "best_of", "prompt")
_KEYS: Final = (b'"model"', b'"stream"', b'"stream_options"')
_ALL_KEYS: Final = (*_KEYS, b'"n"', b'"n_cmpl"', b'"best_of"')
_OURS: Final = frozenset({"model", "stream", "stream_options", "stop", *_CHOICES})
_SPLICE: Final = b'{"stream_options":{"include_usage":true},'
_STEERING: Final = (b'"logit_bias"', b'"grammar"')
_UNREADABLE: Final = "We could not parse the JSON body of your request"
_LONGEST_NAME: Final = 1024


@attrs.frozen(kw_only=True)
class InferenceRequest:
    """The model by name, whether a stream is wanted, and the body to send.

    ``hide_usage``: the usage event of the stream was asked for by us and not by the client. ``choices``: how many
    answers are asked for, where it is more than one.
    """

    model: str
    stream: bool
    hide_usage: bool
    body: bytes = attrs.field(repr=False)
    """Empty where it is in ``file``."""
    file: SpooledBody | None = None
    choices: RequestedChoices | None = None


@attrs.define(eq=False)
class AdmittedRequest:
    """What the gateway knows of one request. The dispatcher and ``pass_on`` fill in what comes of it."""

    exchange: Exchange
    path: InferencePath
    principal: Principal
    parsed: InferenceRequest
    headers: Headers
    """Those that the engine gets."""
    route: ModelRoute
    """Of the model asked for. Looked up again before each further replica."""
    measurement: RequestMeasurement
    memory: MemoryReservation
    tried: set[int] = attrs.field(factory=set)
    """Ids of the instances that have been asked."""
    runs: int = 0
    """How often an engine may have begun to work on it."""
    meter: UsageMeter | None = None
    """Set when the answer begins."""
    rerank: RerankForm | None = None
    """In which form the engine gets it, where it is a request to rerank and that is not the usual one."""
    adapted: bytes | None = attrs.field(default=None, repr=False)
    """The body in that form."""
    failed: bool = False
    permit: Permit | None = None
    """Set where limits apply."""
    bound: TokenBound = TokenBound(0, 0)

    @property
    def body(self) -> bytes:
        """The body in the form of the engine, the same for all replicas."""
        return self.parsed.body if self.adapted is None else self.adapted

    def sent_to(self, endpoint: Endpoint) -> bytes:
        """The body that one replica gets: with its own number of the LoRA adapter that is asked for, if any."""
        body = self.body
        if not self.route.adapter_by_scale or self.route.adapter not in endpoint.adapters:
            return body
        number = endpoint.adapters.index(self.route.adapter)
        return b'{"lora":[{"id":%d,"scale":1.0}],%b' % (number, body[body.index(b"{") + 1 :])


def read_inference_request(
    body: bytes, *, completions: bool = True, single: bool = False
) -> InferenceRequest:
    """Raises ``BadRequest`` with a sentence when the body is not a JSON object that names a model once.

    A stream that does not ask for its usage is made to; nothing else of the body is changed or encoded again.
    What we and an engine might read differently (``model`` twice, ``"stream": "yes"``) is refused: the engine must
    not use another model, or answer in another way, than was counted. Engines use the last of two equal keys
    today, but nothing obliges them to. ``completions`` is false for paths that know no
    ``stream_options``, ``single`` true for those that know no ``n``.
    """
    found = _fields(body)
    model = model_named(found.get("model"))
    stream = _flag(found, "stream", "stream")
    if single and _choices(found, body) is not None:
        raise BadRequest("This API gives one answer to a request: 'n' must be 1")
    if not completions:
        return InferenceRequest(model=model, stream=False, hide_usage=False, body=body)
    choices = _choices(found, body)
    if not stream:
        return InferenceRequest(model=model, stream=False, hide_usage=False, body=body, choices=choices)
    if "stream_options" not in found:
        spliced = _SPLICE + body[body.index(b"{") + 1 :]
        return InferenceRequest(model=model, stream=True, hide_usage=True, body=spliced, choices=choices)
    options = found["stream_options"]
    if options is None:
        options = {}
    if not isinstance(options, dict):
        raise BadRequest("'stream_options' must be an object")
    if _flag(options, "include_usage", "stream_options.include_usage"):
        return InferenceRequest(model=model, stream=True, hide_usage=False, body=body, choices=choices)
    try:
        wanted = orjson.dumps({**options, "include_usage": True})
    except orjson.JSONEncodeError as error:  # it reads deeper than it writes
        raise BadRequest(f"'stream_options' cannot be sent on: {error}") from error
    start, end = next((start, end) for key, start, end in members(body) if key == "stream_options")
    spliced = body[:start] + wanted + body[end:]
    return InferenceRequest(model=model, stream=True, hide_usage=True, body=spliced, choices=choices)


def is_slow(body: bytes) -> bool:
    """Whether reading a long body may take so long that it belongs in a thread. Rarely so."""
    return (
        len(body) > LARGE or b'"stream_options"' in body or takes_long(body) or _may_repeat(body, _ALL_KEYS)
    )


def model_named(model: object) -> str:
    """The name of a model, checked. Raises ``BadRequest``."""
    if model is None or model == "":
        raise BadRequest("Missing 'model' field")
    if not isinstance(model, str):
        raise BadRequest("'model' must be a string")
    if len(model) > _LONGEST_NAME:
        raise BadRequest(f"'model' is longer than {_LONGEST_NAME} characters")
    return model


def _fields(body: bytes) -> dict[str, Any]:
    """The fields of the body. Raises ``BadRequest`` where one that matters here stands there twice."""
    if len(body) > LARGE:
        if b"\0" in body:
            # No JSON in UTF-8 has one. Some engines read UTF-16 too, and would find other members than we do.
            raise BadRequest(f"{_UNREADABLE}: it is not UTF-8")
        return _parsed_members(body)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"{_UNREADABLE}: {error}") from error
    if not isinstance(document, dict):
        raise BadRequest(f"{_UNREADABLE}: it is not an object")
    choices = not document.keys().isdisjoint(_CHOICES)
    if _may_repeat(body, _ALL_KEYS if choices else _KEYS):
        raw_members(body, _OURS)
    return document


def _may_repeat(body: bytes, keys: Collection[bytes]) -> bool:
    """A quick test whether one of the keys may stand there more than once. It errs only towards yes."""
    for key in keys:  # a loop is the fastest way
        if body.count(key) > 1:
            return True
    return b"\\u00" in body and ESCAPED_LETTER.search(body) is not None


def _parsed_members(body: bytes) -> dict[str, Any]:
    """The fields that matter, without parsing the others."""
    found: dict[str, Any] = {}
    for key, value in raw_members(body, _OURS).items():
        try:
            # Once parsed, the lists of a prompt could take many times its size.
            found[key] = value if key == "prompt" else orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"{_UNREADABLE}: '{key}': {error}") from error
    return found


def _choices(found: dict[str, Any], body: bytes) -> RequestedChoices | None:
    if found.keys().isdisjoint(_CHOICES):
        return None
    times = max(1, *[_number(found, name) for name in _TIMES])
    best_of, prompts = _number(found, "best_of"), _prompts(found.get("prompt"))
    if times == 1 and prompts == 1 and best_of <= 1:
        return None
    steered = any(name in body for name in _STEERING) or ESCAPED_LETTER.search(body) is not None
    return RequestedChoices(times, prompts, best_of, steered, _longest_stop(found.get("stop")))


def _longest_stop(stop: object) -> int:
    """Bytes of the longest stop text: engines generate it, and leave it out of the text."""
    texts = stop if isinstance(stop, list) else [stop]
    return max((len(text.encode("utf-8", "replace")) for text in texts if isinstance(text, str)), default=0)


def _number(found: dict[str, Any], name: str) -> int:
    value = whole_number(found.get(name), name)
    return 1 if value is None else value


def _prompts(prompt: object) -> int:
    """An upper bound of the number of prompts: the texts and the lists of tokens in a list."""
    if isinstance(prompt, bytes):
        return prompts_in(prompt)
    if not isinstance(prompt, list):
        return 1
    return max(1, sum(not isinstance(one, int) for one in prompt))


def _flag(fields: dict[str, Any], key: str, name: str) -> bool:
    value = fields.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise BadRequest(f"'{name}' must be true or false")
    return value
