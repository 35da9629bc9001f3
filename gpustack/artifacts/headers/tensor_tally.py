"""Adds up the tensors of a safetensors model by the layer and the role that they have, shard by shard.

What is kept does not grow with the number of tensors, so that a model of thousands of experts takes no memory here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from enum import Enum

import attrs

from gpustack.artifacts.headers.gguf import HeaderError
from gpustack.artifacts.headers.safetensors import TYPE_BITS, SafetensorsTensor
from gpustack.domain.facts import TensorBytes

MOST_LAYERS = 4096
_MOST_STACKS = 64
_LAYER = re.compile(
    r"^(?P<stack>(?:[\w-]+\.)*?(?:layers|layer|h|blocks|block))\.(?P<number>\d{1,6})\.(?P<rest>.+)$"
)
_TOWER = re.compile(
    r"(?:^|\.)(?:\w*vision\w*|visual|vit|\w*image\w*|\w*audio\w*|\w*speech\w*|\w*siglip\w*|\w*clip\w*|sam_model|"
    r"multi_modal_projector|mm_projector|mlp1|resampler|connector|aligner|projector|qformer|apm|vpm)(?:\.|$)"
)
_UNLOADED = re.compile(r"^(?:talker|token2wav|code2wav)\.")
"""Parts of models that speak, which the engines that serve text do not load."""
_DRAFT = re.compile(r"^(?:model\.)?(?:mtp|nextn)\b")
_EMBEDDING = re.compile(
    r"(?:^|\.)(?:embed_tokens|wte|word_embeddings|embed_in|tok_embeddings|embeddings|embedding|shared)\.weight$"
)
_HEAD = re.compile(r"(?:^|\.)(?:lm_head|embed_out|output_layer|output)\.(?:weight|bias)$")
_KEY_VALUE = re.compile(r"(?:^|\.)(?:[kv]_proj|key|value|k|v|wk|wv|[kv]_lin|kv_proj)\.\w+$")
_FUSED = re.compile(r"(?:^|\.)(?:qkv_proj|query_key_value|wqkv|Wqkv|c_attn|qkv)\.\w+$")
_COPIED = re.compile(
    r"(?:^|\.)(?:\w*norm\w*|ln_\w+|gate|router|shared_expert_gate|q_a_proj|kv_a_proj\w*|fused_qkv_a_proj\w*|indexer|"
    r"e_score_correction_bias|rotary_emb|g_idx)(?:\.|$)"
)
_MATRIX = re.compile(r"^(?!.*\.experts\.).*\.(?:weight|qweight|weight_packed)$")
"""Those of experts are left out: adapters seldom add to them."""
_WIDE = frozenset({"F32", "F64"})


class TensorRole(Enum):
    """What happens to a tensor of a layer when the layer is divided among devices."""

    DIVIDED = "divided"
    COPIED = "copied"
    KEY_VALUE = "key_value"
    FUSED = "fused"
    """Projections to query, key and value in one."""


@attrs.define
class TensorTally:
    """Sums of bytes with at most 16 bits a number, and what wider numbers take beyond that.

    ``quantised`` models keep wide numbers, which are their scales.
    """

    quantised: bool = False
    elements: int = 0
    stored: int = 0
    layers: Counter[tuple[str, int, TensorRole]] = attrs.field(factory=Counter)
    embedding: int = 0
    head: int = 0
    tower: int = 0
    draft: int = 0
    other: int = 0
    wide: int = 0
    sides: Counter[str] = attrs.field(factory=Counter)
    """Rows and columns of matrices by the stack of layers."""
    types: Counter[str] = attrs.field(factory=Counter)
    """Bytes by type."""

    def add(self, tensors: Iterable[SafetensorsTensor]) -> None:
        """Raises HeaderError when the tensors claim more layers, or more stacks of them, than any model has."""
        for tensor in tensors:
            self._add(tensor)
        self._check_stacks()

    def merge(self, other: TensorTally) -> None:
        """Add the sums of another shard. Raises as ``add``."""
        for name in ("elements", "stored", "embedding", "head", "tower", "draft", "other", "wide"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.layers.update(other.layers)
        self.types.update(other.types)
        self.sides.update(other.sides)
        self._check_stacks()

    def _check_stacks(self) -> None:
        if len({stack for stack, _, _ in self.layers}) > _MOST_STACKS:
            raise HeaderError("its tensors are of more stacks of layers than any model has")

    def _add(self, tensor: SafetensorsTensor) -> None:
        self.stored += tensor.size
        self.elements += tensor.elements
        self.types[tensor.dtype] += tensor.size
        name, size = tensor.name, tensor.size
        if tensor.dtype in _WIDE and not self.quantised:
            size = tensor.elements * 2
        if _UNLOADED.match(name):
            return
        self.wide += tensor.size - size
        if _DRAFT.match(name):
            self.draft += size
        elif _TOWER.search(name):
            self.tower += size
        elif found := _LAYER.match(name):
            number = int(found["number"])
            if number >= MOST_LAYERS:
                raise HeaderError(f"it claims to have {number} layers")
            role = _role(found["rest"], tensor)
            self.layers[found["stack"], number, role] += size
            if role is not TensorRole.COPIED and _MATRIX.search(name) and len(tensor.shape) == 2:
                self.sides[found["stack"]] += sum(tensor.shape)
        elif _HEAD.search(name):
            self.head += size
        elif _EMBEDDING.search(name):
            self.embedding += size
        else:
            self.other += size

    def tensor_bytes(
        self, layers: int | None, *, tied: bool, heads: int = 0, kv_heads: int = 0
    ) -> TensorBytes | None:
        """The sums in the shape of facts; ``None`` when there are no layers.

        The stack with most bytes is the model's own. Further stacks count as towers, and layers from ``layers`` on as
        drafts. ``heads`` and ``kv_heads`` say how much of a fused projection belongs to keys and values.
        """
        by_stack: Counter[str] = Counter()
        for (stack, _, _), size in self.layers.items():
            by_stack[stack] += size
        if not by_stack:
            return None
        ((own, _),) = by_stack.most_common(1)
        count = layers or 1 + max(number for stack, number, _ in self.layers if stack == own)
        every, copied, key_value = [0] * count, [0] * count, [0] * count
        draft, tower = self.draft, self.tower
        for (stack, number, role), size in self.layers.items():
            if stack != own:
                tower += size
            elif number >= count:
                draft += size
            else:
                every[number] += size
                copied[number] += size if role is TensorRole.COPIED else 0
                key_value[number] += _key_value_part(size, role, heads, kv_heads)
        return TensorBytes(
            layers=tuple(every),
            replicated=tuple(copied),
            key_value=tuple(key_value),
            token_embedding=self.embedding,
            output=0 if tied else self.head,
            other=self.other,
            tied=tied or not self.head,
            tower=tower,
            draft=draft,
            sides=self.sides[own],
            wide=self.wide,
        )

    @property
    def main_type(self) -> str | None:
        """The type that most bytes have."""
        return self.types.most_common(1)[0][0] if self.types else None


def _role(rest: str, tensor: SafetensorsTensor) -> TensorRole:
    if _COPIED.search(rest) or (
        len(tensor.shape) < 2 and TYPE_BITS[tensor.dtype] >= 16 and "bias" not in rest
    ):
        return TensorRole.COPIED
    if _FUSED.search(rest):
        return TensorRole.FUSED
    return TensorRole.KEY_VALUE if _KEY_VALUE.search(rest) else TensorRole.DIVIDED


def _key_value_part(size: int, role: TensorRole, heads: int, kv_heads: int) -> int:
    if role is TensorRole.KEY_VALUE:
        return size
    if role is TensorRole.FUSED and heads:
        return size * 2 * kv_heads // (heads + 2 * kv_heads)
    return 0
