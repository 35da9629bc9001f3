"""Requests to rerank for models and engines that want them in another form, and their answers in the usual one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson

from gpustack.domain.route import RerankForm
from gpustack.errors import BadRequest, Unavailable

TEXTS_PATH: Final = b"/rerank"
"""Where Text Embeddings Inference reranks."""
TOKENS_FIELD: Final = b"x-compute-tokens"
"""In its answers: how many tokens it read."""
LONGEST_ANSWER: Final = 16 << 20
PARSED: Final = 40
"""Memory for each byte of JSON while it is parsed, at most: measured were 30 for a list of empty lists, 40 for
``{"":[]}``."""
_TEMPLATED: Final = 200
"""Memory for each text that the format is put around, on top of that; measured with empty ones."""

# The format that the card of Qwen3-Reranker publishes, with the instruction that it gives for searches.
QUERY_PREFIX: Final = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: '
)
INSTRUCTION: Final = "Given a web search query, retrieve relevant passages that answer the query"
DOCUMENT_PREFIX: Final = "<Document>: "
DOCUMENT_SUFFIX: Final = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
_SPECIAL: Final = ("<|im_start|>", "<|im_end|>")
"""Marks of the format. Within what a client sends they would let a document speak for the system."""


def most_memory(body: bytes, form: RerankForm) -> int:
    """Bytes that ``adapted`` holds at most, told without parsing the body."""
    return PARSED * len(body) + (_TEMPLATED * (body.count(b'"') // 2) if form.templates else 0)


def adapted(body: bytes, form: RerankForm) -> bytes:
    """The request as the engine wants it. Raises ``BadRequest`` where it has no query or documents to change."""
    document = _object(body)
    query, documents = document.get("query"), document.get("documents")
    if not isinstance(query, str):
        raise BadRequest("'query' must be a string")
    if not isinstance(documents, list):
        raise BadRequest("'documents' must be a list")
    if form.templates:
        query = _templated_query(query)
        documents = [_each(one, _templated_document) for one in documents]
    if form.texts:
        texts = [_text_of(one) for one in documents]
        returned = document.get("return_documents") is True
        return orjson.dumps({"query": query, "texts": texts, "return_text": returned, "truncate": True})
    return orjson.dumps({**document, "query": query, "documents": documents})


def restored(answer: bytes, request: bytes, form: RerankForm, model: str, tokens: bytes | None) -> bytes:
    """The answer of the engine as clients know it, with their own documents. ``request`` is what they had sent.

    ``tokens``: the engine's header that counts them, if it has one. Raises ``Unavailable`` where it is no answer.
    """
    try:
        found = orjson.loads(answer)
    except orjson.JSONDecodeError as error:
        raise Unavailable(f"The engine of '{model}' did not answer in JSON") from error
    if form.texts:
        return orjson.dumps(_ranking(found, _object(request), model, tokens))
    results = found.get("results") if isinstance(found, dict) else None
    for result in results if isinstance(results, list) else ():
        if isinstance(result, dict) and "document" in result:
            result["document"] = _each(result["document"], _bare)
    return orjson.dumps(found)


def _ranking(found: Any, request: dict[str, Any], model: str, tokens: bytes | None) -> dict[str, Any]:
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Unavailable(f"The engine of '{model}' did not answer with a ranking")
    ranked = sorted(found, key=lambda one: -float(one.get("score") or 0))
    top = request.get("top_n")
    if isinstance(top, int) and not isinstance(top, bool) and top >= 0:
        ranked = ranked[:top]
    results = []
    for one in ranked:
        result = {"index": one.get("index"), "relevance_score": one.get("score")}
        if isinstance(one.get("text"), str):
            result["document"] = {"text": _bare(one["text"])}
        results.append(result)
    answer: dict[str, Any] = {"model": model, "object": "list", "results": results}
    if tokens is not None and tokens.isdigit() and len(tokens) < 10:
        answer["usage"] = {"prompt_tokens": int(tokens), "total_tokens": int(tokens)}
    return answer


def _templated_query(query: str) -> str:
    return f"{QUERY_PREFIX}{INSTRUCTION}\n<Query>: {_harmless(query)}\n"


def _templated_document(text: str) -> str:
    return f"{DOCUMENT_PREFIX}{_harmless(text)}{DOCUMENT_SUFFIX}"


def _bare(text: str) -> str:
    return text.removeprefix(DOCUMENT_PREFIX).removesuffix(DOCUMENT_SUFFIX)


def _harmless(text: str) -> str:
    """Without the marks. A blank takes their place, so that what stood around one makes no other."""
    for mark in _SPECIAL:
        text = text.replace(mark, " ")
    return text


def _each(document: Any, change: Callable[[str], str]) -> Any:
    """The document with its text changed: it is the text itself, or an object that has it."""
    if isinstance(document, str):
        return change(document)
    if isinstance(document, dict) and isinstance(document.get("text"), str):
        return {**document, "text": change(document["text"])}
    return document


def _text_of(document: Any) -> str:
    text = document.get("text") if isinstance(document, dict) else document
    if not isinstance(text, str):
        raise BadRequest("'documents' must be texts, or objects with 'text'")
    return text


def _object(body: bytes) -> dict[str, Any]:
    """The object in a body that was looked at before. Raises ``BadRequest``."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"We could not parse the JSON body of your request: {error}") from error
    return document if isinstance(document, dict) else {}
