"""Reads a catalog: YAML, within bounds, with every fault named."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date
from typing import Any

from gpustack.domain.catalog import ModelSet, Template, in_order
from gpustack.domain.document import read_yaml
from gpustack.errors import Invalid

MOST_SETS = 2000
MOST_SPECS = 500
"""Deployments that one model set offers."""
_MOST_ITEMS = 500
_LONGEST = 16_384
_DEEPEST = 6
_TOLD = 10

_TEXTS = ("name", "description", "home", "icon")
_LISTS = ("categories", "capabilities", "licenses", "quantizations")


def read_catalog(raw: bytes) -> tuple[ModelSet, ...]:
    """The model sets of a document, in their order. Raises ``Invalid`` with the faults; blocking, no I/O.

    The document is a list of sets, or an object whose ``model_sets`` is one (so that there is room for anchors).
    """
    document = read_yaml(raw)
    if isinstance(document, dict):
        document = document.get("model_sets")
    if not isinstance(document, list):
        raise Invalid("it must be a list of model sets")
    if len(document) > MOST_SETS:
        raise Invalid(f"it has more than {MOST_SETS} model sets")
    faults: list[str] = []
    found = [_set(item, f"model set {number}", faults) for number, item in enumerate(document, 1)]
    if faults:
        more = [f"and {len(faults) - _TOLD} more"] if len(faults) > _TOLD else []
        raise Invalid(*faults[:_TOLD], *more)
    return in_order(tuple(one for one in found if one is not None))


def _set(item: Any, where: str, faults: list[str]) -> ModelSet | None:
    if not isinstance(item, dict):
        faults.append(f"{where} must be an object")
        return None
    before = len(faults)
    name = item.get("name")
    if not isinstance(name, str) or not name.strip():
        faults.append(f"{where} has no name")
        return None
    where = f"model set {name[:80]!r}"
    fields: dict[str, Any] = {key: _text(item.get(key), f"{where}: {key}", faults) for key in _TEXTS}
    fields.update({key: _texts(item.get(key), f"{where}: {key}", faults) for key in _LISTS})
    sizes = _sizes(item.get("sizes"), f"{where}: sizes", faults)
    templates = _templates(item.get("templates"), where, faults)
    order = item.get("order")
    if order is not None and not _is_number(order):
        faults.append(f"{where}: order must be a number")
    if len(faults) > before:
        return None
    made = ModelSet(
        **{**fields, "name": name.strip()},
        sizes=sizes,
        release_date=_day(item.get("release_date"), f"{where}: release_date", faults),
        order=order,
        templates=templates,
    )
    count = sum(
        max(len(t.sizes or sizes), 1) * max(len(t.quantizations or made.quantizations), 1) for t in templates
    )
    if count > MOST_SPECS:
        faults.append(f"{where} offers more than {MOST_SPECS} deployments")
        return None
    return made


def _templates(value: Any, where: str, faults: list[str]) -> tuple[Template, ...]:
    made = []
    for number, item in enumerate(_items(value, f"{where}: templates", faults), 1):
        at = f"{where}: template {number}"
        if not isinstance(item, dict) or not isinstance(item.get("source"), str):
            faults.append(f"{at} must be an object with a source")
            continue
        own = {"sizes", "quantizations"}
        fields = {str(key): _plain(part, at, faults) for key, part in item.items() if key not in own}
        made.append(
            Template(
                fields=fields,
                sizes=_sizes(item.get("sizes"), f"{at}: sizes", faults),
                quantizations=_texts(item.get("quantizations"), f"{at}: quantizations", faults),
            )
        )
    return tuple(made)


def _plain(value: Any, where: str, faults: list[str], depth: int = 0) -> Any:
    """A value that JSON can hold. Depth and lengths are bounded: nested anchors would multiply."""
    if value is None or isinstance(value, bool | str) or _is_number(value):
        return value if not isinstance(value, str) else _text(value, where, faults)
    if depth < _DEEPEST and isinstance(value, list) and len(value) <= _MOST_ITEMS // (depth * 10 + 1):
        return [_plain(item, where, faults, depth + 1) for item in value]
    if depth < _DEEPEST and isinstance(value, dict) and len(value) <= _MOST_ITEMS // (depth * 10 + 1):
        return {str(key): _plain(item, where, faults, depth + 1) for key, item in value.items()}
    faults.append(f"{where} holds something that is no text, number, list or object, or too much of it")
    return None


def _text(value: Any, where: str, faults: list[str]) -> str | None:
    if value is not None and (not isinstance(value, str) or len(value) > _LONGEST):
        faults.append(f"{where} must be text of at most {_LONGEST} characters")
        return None
    return value


def _items(value: Any, where: str, faults: list[str]) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > _MOST_ITEMS:
        faults.append(f"{where} must be a list of at most {_MOST_ITEMS} items")
        return []
    return value


def _texts(value: Any, where: str, faults: list[str]) -> tuple[str, ...]:
    found = _items(value, where, faults)
    if not all(isinstance(one, str) and len(one) <= _LONGEST for one in found):
        faults.append(f"{where} must be a list of texts")
        return ()
    return tuple(found)


def _sizes(value: Any, where: str, faults: list[str]) -> tuple[float, ...]:
    found = _items(value, where, faults)
    if not all(_is_number(one) and one > 0 for one in found):
        faults.append(f"{where} must be a list of numbers (billions of parameters)")
        return ()
    return tuple(float(one) for one in found)


def _day(value: Any, where: str, faults: list[str]) -> str | None:
    if isinstance(value, date):
        return value.isoformat()[:10]  # YAML reads a bare day as one
    return _text(value, where, faults)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def by_source(sets: tuple[ModelSet, ...]) -> Mapping[str, Mapping[str, Any]]:
    """By repository: the defaults of a deployment that names only the repository."""
    found: dict[str, Mapping[str, Any]] = {}
    for one in sets:
        for spec in one.specs:
            fields = spec.fields
            repo = fields.get("huggingface_repo_id") or fields.get("model_scope_model_id")
            if isinstance(repo, str):
                found.setdefault(repo.casefold(), {"categories": list(one.categories), **fields})
    return found
