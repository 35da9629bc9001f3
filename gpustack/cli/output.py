"""What ``-o`` and ``-q`` mean: the API's own documents as JSON or YAML, names alone, or a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpustack.cli.usage import CommandLine

FORMS = ("table", "json", "yaml")


def show(
    words: CommandLine,
    documents: list[dict[str, Any]] | dict[str, Any],
    table: Callable[[], str],
    *,
    name: str = "name",
) -> None:
    """Print the documents in the form that the command line asks for; ``table`` draws it when that is wanted."""
    form = words.choice("--output", *FORMS)
    if words.found.get("--quiet"):
        items = documents if isinstance(documents, list) else [documents]
        text = "\n".join(str(item.get(name)) for item in items)
    elif form == "json":
        text = as_json(documents)
    elif form == "yaml":
        text = as_yaml(documents)
    else:
        text = table()
    if text:
        print(text)


def as_json(document: Any) -> str:
    import json

    return json.dumps(document, indent=2, ensure_ascii=False)


def as_yaml(document: Any) -> str:
    import yaml

    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)).rstrip("\n")
