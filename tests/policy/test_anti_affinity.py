"""Replicas are kept apart from those of their own deployment and of others."""

from __future__ import annotations

import attrs

from gpustack.domain.affinity import AntiAffinity, AntiAffinityTerm
from gpustack.domain.instance import Claim, Placement
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model, PlacementStrategy
from gpustack.domain.record import Record
from gpustack.domain.unit import GIB
from gpustack.policy.placement import MAKES_ROOM, Unschedulable
from gpustack.policy.reconcile import ReplicaPlan, replica_plan
from gpustack.policy.schedule import place

from .shapes import facts_of
from .worlds import ask, gpu, instance, model, worker, world

SMALL = facts_of("llama-3.2-1b")
ZONE = "topology.kubernetes.io/zone"
OWN = AntiAffinityTerm()
PACKED = PlacementStrategy.BINPACK


def outcome(of: Model, *records: Record) -> int | str:
    """The worker that is taken, or the sentence why there is none."""
    found = place(ask(of, SMALL, instance=instance(99, of)), world(*records, of))
    return found.worker_id if isinstance(found, Placement) else found.sentence


def required(*terms: AntiAffinityTerm, key: int = 1, **fields: object) -> Model:
    return model(key, anti_affinity=AntiAffinity(required=terms), placement_strategy=PACKED, **fields)


def preferred(*terms: AntiAffinityTerm) -> Model:
    return model(1, anti_affinity=AntiAffinity(preferred=terms), placement_strategy=PACKED)


def test_no_two_replicas_are_on_one_worker_where_that_is_required() -> None:
    of = required(OWN)
    there = [worker(1), worker(2)]
    first, second = (instance(key, of, on=key, claim=Claim(ram=GIB)) for key in (1, 2))
    assert outcome(of, *there, first) == 2
    says = outcome(of, *there, first, second)
    assert str(says).startswith(
        "Worker node-a has m1-1, beside which the deployment must not be (anti_affinity); worker node-b has m1-2"
    )
    assert "To make it fit: prefer its anti_affinity in place of requiring it" in str(says)


def test_where_it_is_preferred_they_are_together_only_if_they_must_be() -> None:
    of = preferred(OWN)
    first = instance(1, of, on=1, claim=Claim(ram=GIB))
    assert outcome(of, worker(1, ram=16), worker(2, ram=256), first) == 2, "though the first is fuller"
    assert outcome(of, worker(1, ram=16), first) == 1


def test_other_models_are_named_with_a_star_or_by_their_labels() -> None:
    busy = model(2, name="llama-chat", labels={"team": "search", "size": "large"})
    other = model(3, name="qwen", labels={"team": "search"})
    held = [instance(1, busy, on=1), instance(2, other, on=2)]
    there = [worker(1), worker(2), busy, other, *held]
    assert outcome(required(AntiAffinityTerm(models=("llama*",))), *there) == 2
    assert outcome(required(AntiAffinityTerm(models=("qwen",))), *there) == 1
    large = AntiAffinityTerm(match_labels={"team": "search", "size": "large"})
    assert outcome(required(large), *there) == 2
    team = AntiAffinityTerm(match_labels={"team": "search"})
    assert "worker node-b has qwen-2, beside which" in str(outcome(required(team), *there))
    assert outcome(required(AntiAffinityTerm(models=("llama",))), *there) in (1, 2), "a name is whole"


def test_what_must_be_apart_from_a_model_keeps_that_away_too() -> None:
    alone = required(AntiAffinityTerm(models=("m1",)), key=2)
    held = instance(1, alone, on=1)
    assert outcome(model(1), worker(1), worker(2), alone, held) == 2
    says = outcome(model(1), worker(1), alone, held)
    assert str(says).startswith(
        "Worker node-a has m2-1, which must not be beside the deployment (anti_affinity of m2)"
    )
    assert outcome(model(3), worker(1), alone, held) == 1


def test_a_topology_key_keeps_them_apart_by_a_label_of_workers() -> None:
    of = required(AntiAffinityTerm(topology_key=ZONE))
    there = [worker(key, labels={ZONE: zone}) for key, zone in ((1, "a"), (2, "a"), (3, "b"))]
    first = instance(1, of, on=1)
    assert outcome(of, *there, first) == 3
    says = outcome(of, *there[:2], first)
    assert "Worker node-a shares topology.kubernetes.io/zone=a with m1-1, beside which" in str(says)
    assert outcome(of, *there[:2], worker(4), first) == 4, "a worker without the label shares it with none"


def test_among_many_that_are_alike_only_the_free_ones_are_taken() -> None:
    of = required(OWN)
    there = [worker(key, gpus=[gpu(0)]) for key in range(1, 21)]
    snapshot, taken = world(*there, of), set()
    for key in range(1, 21):
        found = place(ask(of, SMALL, instance=instance(key, of)), snapshot)
        assert isinstance(found, Placement)
        taken.add(found.worker_id)
        snapshot = snapshot.changed(attrs.evolve(instance(key, of), placement=found))
    assert len(taken) == 20
    assert isinstance(place(ask(of, SMALL, instance=instance(21, of)), snapshot), Unschedulable)


def test_a_new_generation_takes_over_where_each_worker_has_a_replica() -> None:
    """The old one makes room: else both would wait for each other."""
    of = required(OWN, generation=2)
    old = instance(1, of, on=1, generation=1)
    new = instance(2, of)
    found = place(ask(of, SMALL, instance=new), world(worker(1), of, old))
    assert isinstance(found, Unschedulable)
    assert MAKES_ROOM in found.sentence
    waits = attrs.evolve(new, state=InstanceState.PENDING, state_message=found.sentence)
    assert replica_plan(of, [old, waits], world(worker(1), of, old, waits)) == ReplicaPlan(end=(1,))
