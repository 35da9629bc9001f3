"""Deterministic model files for tests, made in seconds and never downloaded."""

from tests.models.embedder import make_embedder
from tests.models.hollow import make_hollow
from tests.models.projector import make_projector
from tests.models.shape import SHAPES, Shape
from tests.models.split import split_gguf
from tests.models.tiny_llm import make_tiny_llm

__all__ = ["SHAPES", "Shape", "make_embedder", "make_hollow", "make_projector", "make_tiny_llm", "split_gguf"]
