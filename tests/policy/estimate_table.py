"""``docs/estimates.md``: how far the estimates of GGUF models are from what llama.cpp allocates.

python -m tests.policy.estimate_table
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gpustack.domain.unit import MIB
from gpustack.policy.estimate.gguf import estimate

from .gguf_table import SETTINGS, Measured, measured

PAGE = Path(__file__).resolve().parents[2] / "docs" / "estimates.md"
_HEAD = """# Estimates of GGUF models

Made by `make estimates` from what llama.cpp allocated (the embedded build `xllamacpp` 2026.10.11549, by its own lines
about buffers) for hollow models: the shapes of published ones (some partly assumed), all tensors that the loader asks
for, and no words. Figures and shapes are in `tests/policy/gguf_table.json`; `benchmarks/gguf_memory.py` measures
further ones. Sums are in MiB and without the memory of the process itself, for which a claim has {process}
beside what stands here.

{summary}

Settings: {settings}

| model | architecture | rows | engine, least to most | estimate, lowest and highest error | claim, least and most |
|---|---|---|---|---|---|
"""


def page() -> str:
    """The document as it should be."""
    process = "64 MiB and 700 bytes for each entry of the vocabulary"
    return (
        _HEAD.format(process=process, summary=_summary(), settings=_settings()) + "\n".join(_lines()) + "\n"
    )


def errors(model: Measured) -> list[tuple[float, float]]:
    """For each row the error of the estimate as a share of what the engine allocates, and the claim as one."""
    found = []
    for row in model.rows:
        need = estimate(model.facts, SETTINGS[row.setting]).host
        found.append((need.total / MIB / row.total - 1, need.claim(0) / MIB / row.total))
    return found


def _lines() -> Iterator[str]:
    for model in sorted(measured(), key=lambda model: (model.facts.architecture, model.name)):
        wrong, claims = zip(*errors(model), strict=True)
        sums = [row.total for row in model.rows]
        yield (
            f"| {model.name} | `{model.facts.architecture}` | {len(sums)} | {min(sums):.0f} to {max(sums):.0f} "
            f"| {_percent(min(wrong))} to {_percent(max(wrong))} | {min(claims):.1%} to {max(claims):.1%} |"
        )


def _summary() -> str:
    models = measured()
    every = [pair for model in models for pair in errors(model)]
    close = sum(abs(wrong) <= 0.05 for wrong, _ in every)
    closer = sum(abs(wrong) <= 0.01 for wrong, _ in every)
    claimed = sum(1 <= claim <= 1.1 for _, claim in every)
    architectures = len({model.facts.architecture for model in models})
    return (
        f"{len(models)} models of {architectures} architectures, {len(every)} rows: the estimate is within 5 % in "
        f"{close} and within 1 % in {closer} of them; the claim is between what the engine takes and a tenth above it "
        f"in {claimed}."
    )


def _settings() -> str:
    words = []
    for name, one in SETTINGS.items():
        parts = [f"{one.ctx} tokens", f"{one.parallel} slots" if one.parallel > 1 else "one slot"]
        parts += ["apart"] if not one.unified else []
        parts += [f"keys and values {one.key_type}"] if one.key_type != "f16" else []
        parts += ["no flash attention"] if not one.flash_attention else []
        parts += [f"micro-batches of {one.ubatch}"] if one.ubatch != 512 else []
        parts += ["`--swa-full`"] if one.full_window else []
        parts += ["vectors"] if not one.logits else []
        words.append(f"`{name}` is {', '.join(parts)}")
    return "; ".join(words) + "."


def _percent(share: float) -> str:
    text = f"{share:+.1%}"
    return "0" if text in ("+0.0%", "-0.0%") else text


if __name__ == "__main__":
    PAGE.write_text(page())
