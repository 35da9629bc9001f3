"""Another quantisation of the same model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.facts import ModelFacts
from gpustack.domain.unit import human_bytes
from gpustack.policy.remedy import MODEL, FieldChange, Remedy
from gpustack.policy.trial import Trial

RANK = 57
KIND = "quantisation"
_MOST_TRIED = 16
_FIELDS = ("huggingface_filename", "model_scope_file_path", "ollama_library_model_name", "local_path")


def find(trial: Trial) -> Remedy | None:
    """The largest that fits, of those whose headers the server has read already: nothing is fetched for it."""
    for source, facts in others(trial)[:_MOST_TRIED]:
        remedy = _with(source, facts, trial)
        if trial.helps(remedy):
            return remedy
    return None


def others(trial: Trial) -> list[tuple[ModelSource, ModelFacts]]:
    """Other files of the same model, smaller than this; the largest first."""
    own = trial.request.facts
    if own is None or own.weights is None:
        return []
    found: dict[str, tuple[ModelSource, ModelFacts]] = {}
    for source in _known_sources(trial):
        facts = trial.facts_of(source)
        if facts is not None and facts.weights and facts.weights < own.weights and _is_same(facts, own):
            found.setdefault(source.index, (source, facts))
    return sorted(found.values(), key=lambda pair: (-(pair[1].weights or 0), pair[0].readable))


def _known_sources(trial: Trial) -> Iterator[ModelSource]:
    """Of the same repository or folder, as other deployments name them and as they lie on workers."""
    source, snapshot = trial.request.model.source, trial.snapshot
    named = (model.source for model in snapshot.models.values())
    stored = (file.source for file in snapshot.files.values())
    for other in (*named, *stored):
        if _home(other) == _home(source) and other != source:
            yield other


def _home(source: ModelSource) -> object:
    if source.kind is SourceKind.LOCAL_PATH:
        return source.kind, str(PurePosixPath(source.local_path or "").parent)
    name = source.repo.partition(":")[0] if source.kind is SourceKind.OLLAMA else source.repo
    return source.kind, name, source.revision


def _is_same(one: ModelFacts, other: ModelFacts) -> bool:
    """Whether both are one model but for the bits of a weight."""
    alike = ("format", "architecture", "total_layers", "embedding_length", "heads", "vocabulary")
    return all(getattr(one, name) == getattr(other, name) for name in alike)


def _with(source: ModelSource, facts: ModelFacts, trial: Trial) -> Remedy:
    """The deployment's source with another file. The fields are those of the API, where a source is not one field."""
    model, own = trial.request.model, trial.request.model.source
    changes = [
        FieldChange(of=MODEL, id=model.id, name=model.name, field=name, value=getattr(source, name))
        for name in _FIELDS
        if getattr(source, name) != getattr(own, name)
    ]
    kind = f" ({facts.quantisation}, {human_bytes(facts.weights)})" if facts.quantisation else ""
    sentence = f"use {source.file_pattern or source.readable} instead{kind}"
    return Remedy(kind=KIND, sentence=sentence, changes=tuple(changes), by_api=True)
