"""In which form a deployment takes requests to rerank, where that is not the usual one."""

from __future__ import annotations

from collections.abc import Mapping

from gpustack.domain.model import Model
from gpustack.domain.route import RerankForm

from .tei import ENGINE as TEI

TEMPLATES = "GPUSTACK_APPLY_QWEN3_RERANKER_TEMPLATES"
"""Variable of a deployment: whether query and documents are put into the prompt format of Qwen3-Reranker."""
_ON = frozenset({"1", "true", "yes", "on"})
_OFF = frozenset({"", "0", "false", "no", "off"})


def rerank_form(model: Model) -> RerankForm | None:
    """``None``: requests go to its engine as they are."""
    templates = model.env.get(TEMPLATES, "").strip().lower() in _ON
    texts = model.backend == TEI.wire_name
    return RerankForm(templates=templates, texts=texts) if templates or texts else None


def template_faults(env: Mapping[str, str]) -> list[str]:
    """What is wrong with the variable in a deployment's environment, a sentence."""
    given = env.get(TEMPLATES, "")
    if given.strip().lower() in _ON | _OFF:
        return []
    return [f"env: {TEMPLATES} must be true or false, not {given!r}"]
