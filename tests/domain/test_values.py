"""Small values: device ids, labels, units, sources, edits, and the life of an instance."""

from __future__ import annotations

import attrs
import pytest

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.device import DeviceId
from gpustack.domain.document import decode, encode
from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import EVICT, SERVING, TRANSITIONS, InstanceState, Party, allowed
from gpustack.domain.model import RUNTIME_FIELDS, Model, edited
from gpustack.domain.record import Record, record_classes, table_of
from gpustack.domain.report import InstanceReport
from gpustack.domain.unit import GIB, KIB, MIB, human_bytes
from gpustack.domain.worker import Worker, unmatched

S = InstanceState


@pytest.mark.parametrize("text", ["w:cuda:0", "my:odd:name:rocm:12", "w-1.example:mps:0"])
def test_a_device_id_is_read_and_written_alike(text: str) -> None:
    assert str(DeviceId.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "w", "w:cuda", ":cuda:0", "w:cuda:x", "w:cuda:-1", "w:gpu:0", "w:0:cuda"),
        *("w:cuda:\u00b2", "w:cuda:\u0663", "w:cuda:" + "9" * 5000),
    ],
)
def test_what_is_no_device_id_is_told_so(text: str) -> None:
    with pytest.raises(ValueError, match="is not <worker name>:<type>:<index>"):
        DeviceId.parse(text)


def test_a_selector_matches_labels_that_hold_all_of_it() -> None:
    labels = {"os": "linux", "zone": "a"}
    assert unmatched({}, labels) == {}
    assert unmatched({"os": "linux"}, labels) == {}
    assert unmatched({"os": "linux", "zone": "b", "rack": "1"}, labels) == {"zone": "b", "rack": "1"}


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "unknown"),
        (0, "0 B"),
        (1023, "1023 B"),
        (KIB, "1.0 KiB"),
        (-3 * MIB, "-3.0 MiB"),
        (3 * GIB, "3.0 GiB"),
        (1 << 41, "2.0 TiB"),
    ],
)
def test_bytes_are_shown_with_binary_prefixes(count: int | None, text: str) -> None:
    assert human_bytes(count) == text


MODEL = Model(name="m", source=ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/m.gguf"), generation=3)


def test_an_edit_of_what_runs_starts_a_new_generation() -> None:
    assert edited(MODEL, attrs.evolve(MODEL, backend_parameters=("--x",))).generation == 4
    assert edited(MODEL, attrs.evolve(MODEL, name="n", generation=99)).generation == 4


def test_an_edit_of_anything_else_does_not() -> None:
    after = attrs.evolve(MODEL, replicas=5, description="d", meta={"a": 1}, ready_replicas=2, generation=99)
    assert edited(MODEL, after) == attrs.evolve(after, generation=3)


def test_the_fields_that_start_a_generation_exist() -> None:
    assert {field.name for field in attrs.fields(Model)} >= RUNTIME_FIELDS


def test_only_the_party_named_in_the_table_moves_an_instance() -> None:
    assert allowed(S.PENDING, S.SCHEDULED, Party.SCHEDULER)
    assert not allowed(S.PENDING, S.SCHEDULED, Party.WORKER)
    assert allowed(S.STARTING, S.RUNNING, Party.WORKER)
    assert not allowed(S.STARTING, S.RUNNING, Party.SCHEDULER)
    assert not allowed(S.PENDING, S.RUNNING, Party.WORKER)
    assert allowed(S.RUNNING, S.UNREACHABLE, Party.LIVENESS)
    assert not allowed(S.ERROR, S.UNREACHABLE, Party.LIVENESS)


@pytest.mark.parametrize("state", S)
def test_staying_is_always_allowed(state: S) -> None:
    assert all(allowed(state, state, party) for party in Party)


def test_no_state_is_a_dead_end_and_each_can_be_reached() -> None:
    moves: dict[S, set[S]] = {state: set() for state in S}
    for transition in TRANSITIONS:
        assert transition.source is not transition.target
        assert transition.when
        moves[transition.source].add(transition.target)
    for start in S:
        seen, ahead = {start}, [start]
        while ahead:
            for target in moves[ahead.pop()] - seen:
                seen.add(target)
                ahead.append(target)
        assert seen == set(S), f"from {start.value} there is no way to {set(S) - seen}"


def test_what_serves_is_placed_and_what_waits_is_not() -> None:
    assert set(EVICT.sources) > SERVING
    assert {S.PENDING, S.ANALYZING}.isdisjoint(EVICT.sources)


def test_a_source_has_one_index_however_it_is_reached() -> None:
    source = ModelSource(
        kind=SourceKind.HUGGING_FACE,
        huggingface_repo_id="me/m",
        huggingface_filename="*Q4*.gguf",
        revision="main",
    )
    assert source.readable == "me/m/*Q4*.gguf@main"
    assert source.names_gguf
    assert source.index == attrs.evolve(source).index
    assert source.index != attrs.evolve(source, revision=None).index
    assert not attrs.evolve(source, huggingface_filename=None).names_gguf
    assert ModelSource(kind=SourceKind.OLLAMA, ollama_library_model_name="llama").names_gguf


def test_every_record_class_names_columns_it_has() -> None:
    assert table_of(Worker) == "workers"
    names = [spec.name for spec in record_classes().values()]
    assert len(set(names)) == len(names)
    for cls, spec in record_classes().items():
        assert issubclass(cls, Record)
        fields = {field.name for field in attrs.fields(cls)}
        assert fields.issuperset(name for columns in (*spec.unique, spec.indexed) for name in columns)


def test_an_instance_knows_its_worker_once_placed() -> None:
    made = ModelInstance(name="m-1", model_id=1, model_name="m", source=MODEL.source)
    assert made.worker_id is None


def test_a_report_with_foreign_text_in_it_is_sent_and_taken() -> None:
    """A word of an engine or a file system keeps nobody from hearing the rest, whichever side washes it."""
    report = InstanceReport(
        state_message="caf\udce9\0 \U0001f468\u200d\U0001f469\r\n", resolved_path="/m/\ud800"
    )
    read = decode(encode(report), InstanceReport)
    assert (read.state_message, read.resolved_path) == (
        "caf\\xe9\\x00 \U0001f468\u200d\U0001f469\r\n",
        r"/m/\ud800",
    )
    assert decode(b'{"state_message": "a\\u0000b"}', InstanceReport).state_message == r"a\x00b"
