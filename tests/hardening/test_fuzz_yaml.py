"""YAML of strangers is read or refused by name: no value of it breaks the reader, or what is answered of it."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gpustack.config.file import read_file
from gpustack.domain.document import read_yaml
from gpustack.errors import Invalid
from gpustack.metrics.mapping import read_map
from gpustack.server.catalog_file import read_catalog

from .fuzzing import fuzz

pytestmark = pytest.mark.attack("parser")

SCALARS = st.sampled_from(
    ["", "x", "~", "1", "-1", "0x" + "f" * 40, "0b1", "1:59:59", "1e400", ".nan", ".inf", "true", "2001-01-01",
     "2001-99-99", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", '"\\ud800"', '"\\0"', "'x'", "|\n  x",
     "<<", "=", "9" * 5000, "vLLM", "Gauge", ">=1,<2", "huggingface", "a/b"]
)  # fmt: skip
TAGS = st.sampled_from(
    ["", "", "", "", *(f"!!{tag} " for tag in ("int", "float", "bool", "timestamp", "binary", "null", "set", "omap",
     "pairs", "str", "map", "seq", "python/object:os.system", "merge", "value")), "&a ", "!x "]
)  # fmt: skip
KEYS = st.sampled_from(
    ["name", "sizes", "order", "release_date", "templates", "source", "quantizations", "model_sets", "gpustack_metrics",
     "runtime_mapping", "type", "<<", "? [a]", "1", "~", "*a", "port", "token", "allow_origins"]
)  # fmt: skip
VALUES = st.recursive(
    st.tuples(TAGS, SCALARS | st.just("*a")).map("".join),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda found: f"[{', '.join(found)}]")
        | st.lists(st.tuples(KEYS, inner), max_size=4).map(
            lambda found: "{" + ", ".join(f"{key} : {value}" for key, value in found) + "}"
        )
    ),
    max_leaves=10,
)
DOCUMENTS = (
    VALUES
    | VALUES.map(lambda value: f"- {value}")
    | st.lists(st.tuples(KEYS, VALUES), max_size=5).map(
        lambda found: "- {" + ", ".join(f"{key} : {value}" for key, value in found) + "}"
    )
    | st.tuples(VALUES, VALUES).map(
        lambda two: (
            f"- &a {{name: x, templates: [{{source: huggingface, x: {two[0]}}}]}}\n- {{<<: *a, order: {two[1]}}}"
        )
    )
    | st.text(max_size=60)
)


@fuzz(150)
@given(DOCUMENTS)
def test_a_catalog_is_read_and_can_be_answered_or_it_is_refused(text: str) -> None:
    try:
        sets = read_catalog(text.encode("utf-8", "surrogatepass"))
    except Invalid as error:
        assert str(error)
        return
    for one in sets:
        orjson.dumps([one.name, one.order, list(one.sizes), one.release_date])
        for spec in one.specs:
            orjson.dumps(spec.fields)


@fuzz(150)
@given(DOCUMENTS)
def test_a_mapping_of_metrics_is_read_or_refused(text: str) -> None:
    try:
        read_map(read_yaml(text.encode("utf-8", "surrogatepass"))).document()
    except Invalid as error:
        assert str(error)


@fuzz(150)
@given(DOCUMENTS)
def test_what_the_bounds_let_through_is_what_the_library_reads(text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    try:
        found = read_yaml(raw)
    except Invalid:
        return
    assert repr(found) == repr(yaml.safe_load(raw))


@pytest.mark.attack("mistake")
@fuzz(150)
@given(text=DOCUMENTS)
def test_a_configuration_file_is_read_or_its_faults_are_told(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    layer, faults = read_file(Path(path), "fuzzed.yaml")
    assert isinstance(layer, dict) and isinstance(faults, list)


def bomb(levels: int, width: int) -> str:
    lines = ["l0: &l0 {k: 1}"]
    for level in range(1, levels):
        of = ", ".join([f"*l{level - 1}"] * width)
        lines.append(f"l{level}: &l{level} {{<<: [{of}]}}")
    return "\n".join(lines)


BOMBS = {
    "merges of merges": bomb(4, 25),
    "wide merges": bomb(2, 10_001),
    "a merge into itself": "a: &a {<<: *a, b: 1}",
    "lists of lists": "\n".join(
        [
            "l0: &l0 [x, x]",
            *(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 2)}]" for n in range(1, 9)),
            "model_sets: [{name: a, templates: [{source: x, y: *l8}]}]",
        ]
    ),
    "a number in sixties": "- {name: a, order: 1" + ":59" * 22 + "}",
    "a number of many digits": "- {name: a, order: " + "9" * 65 + "}",
    "a hexadecimal one": "- {name: a, order: 0x" + "f" * 65 + "}",
    "a nest": "[" * 2000,
    "a nest of keys": "? " * 2000,
}


@pytest.mark.attack("hub")
@pytest.mark.parametrize("kind", sorted(BOMBS))
def test_a_small_document_does_not_become_a_large_one(kind: str) -> None:
    """Of each a little more than may be, which the library itself reads or refuses in a moment. Of much more, merges
    and numbers in sixties take it hours, and lists of lists take all memory of whoever writes them out."""
    with pytest.raises(Invalid):
        read_catalog(BOMBS[kind].encode())
