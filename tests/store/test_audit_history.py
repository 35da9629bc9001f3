"""Events go along with what they tell of, are found by what they hold, and end when they are old."""

from __future__ import annotations

import functools
from datetime import timedelta

import pytest
import trio

from gpustack.domain.access import User
from gpustack.domain.audit import AuditEvent, AuditOutcome
from gpustack.store import Store, audit_history
from gpustack.store.attached_write import AttachedWrite, attach, detach
from gpustack.store.audit_history import AuditFilter
from gpustack.store.transaction import Tx

from .conftest import Clock, Opened

EVERY = AuditFilter()


def event(tx: Tx, action: str, **more: object) -> AuditEvent:
    fields = {"at": tx.now, "outcome": AuditOutcome.DONE, "status": 200, **more}
    return tx.insert(AuditEvent(action=action, **fields))  # type: ignore[arg-type]


async def actions(store: Store, wanted: AuditFilter = EVERY) -> list[str]:
    found = await store.query(functools.partial(audit_history.page, wanted=wanted, skip=0, most=100))
    assert await store.query(functools.partial(audit_history.count, wanted=wanted)) == len(found)
    return [one.action for one in found]


def add_user(name: str) -> functools.partial[User]:
    def work(tx: Tx, name: str) -> User:
        return tx.insert(User(username=name))

    return functools.partial(work, name=name)


async def test_a_change_and_what_goes_along_are_there_together_or_not_at_all(opened: Opened) -> None:
    broken = True

    def tell(tx: Tx, result: object) -> None:
        assert isinstance(result, User)
        event(tx, f"add.{result.username}")
        if broken:
            raise ZeroDivisionError

    async with opened() as store:
        write = AttachedWrite(tell)
        with attach(write):
            with pytest.raises(ZeroDivisionError):
                await store.write(add_user("ada"))
            assert not store.snapshot.users
            assert await actions(store) == []
            broken = False
            with detach():
                await store.write(add_user("step"))
            assert await actions(store) == []
            await store.write(add_user("ada"))
            assert write.written
            await store.write(add_user("bob"))
            assert await actions(store) == ["add.ada"]
        await store.write(add_user("eve"))
        assert await actions(store) == ["add.ada"]
        assert len(store.snapshot.users) == 4


async def test_what_another_task_writes_takes_nothing_along(opened: Opened) -> None:
    async with opened() as store, trio.open_nursery() as nursery:
        nursery.start_soon(store.write, add_user("other"))
        with attach(AttachedWrite(lambda tx, result: event(tx, f"add.{result.username}") and None)):  # type: ignore[attr-defined]
            await store.write(add_user("ada"))
    async with opened() as store:
        assert await actions(store) == ["add.ada"]


async def test_events_are_found_by_what_they_hold(opened: Opened, clock: Clock) -> None:
    def work(tx: Tx) -> None:
        event(tx, "model.create", actor_id=7, actor_name="Ada", target_type="model", target_id=3)
        event(tx, "model.delete", actor_name="100%", address="10.0.0.1", target_name="Llama_3\\x")
        event(
            tx, "models.odd", outcome=AuditOutcome.REFUSED, status=401, means="key", details={"a": [1, "ü"]}
        )

    async with opened() as store:
        await store.write(work)
        wanted = {
            AuditFilter(actor="Ada"): 1,
            AuditFilter(actor="ada"): 0,
            AuditFilter(actor="7"): 1,
            AuditFilter(action="model."): 2,
            AuditFilter(action="model.create"): 1,
            AuditFilter(outcome=AuditOutcome.REFUSED): 1,
            AuditFilter(means="key"): 1,
            AuditFilter(address="10.0.0.1"): 1,
            AuditFilter(target_type="model", target_id=3): 1,
            AuditFilter(search="aDA"): 1,
            AuditFilter(search="0%"): 1,
            AuditFilter(search="l%m"): 0,
            AuditFilter(search="llama_3\\X"): 1,
            AuditFilter(search="' or 1=1 --"): 0,
            AuditFilter(since=clock.now): 3,
            AuditFilter(until=clock.now): 0,
        }
        assert {one: len(await actions(store, one)) for one in wanted} == wanted
        first = (
            await store.query(functools.partial(audit_history.page, wanted=AuditFilter(), skip=0, most=1))
        )[0]
        assert (first.details, first.at) == ({"a": [1, "ü"]}, clock.now)
        assert store.snapshot.revision == 0


async def test_a_run_of_events_is_read_on_whatever_comes_meanwhile(opened: Opened, clock: Clock) -> None:
    async with opened() as store:
        for number in range(7):
            await store.write(lambda tx, n=number: event(tx, f"tests.{n}"))  # type: ignore[misc]
            clock.forward(seconds=number % 2)
        read, than = [], None
        while True:
            part = await store.query(
                functools.partial(audit_history.older, wanted=AuditFilter(), than=than, most=2)
            )
            if not part:
                break
            read += [one.action for one in part]
            than = (part[-1].at, part[-1].id)
            await store.write(lambda tx: event(tx, "tests.new"))
        assert read == [f"tests.{number}" for number in reversed(range(7))]


async def test_old_events_end_a_few_at_a_time(opened: Opened, clock: Clock) -> None:
    async with opened() as store:
        for _ in range(5):
            await store.write(lambda tx: event(tx, "tests.old"))
            clock.forward(days=1)
        border = clock.now - timedelta(days=1)
        forgot = [await store.write(lambda tx: tx.forget_events(border, 3)) for _ in range(3)]
        assert forgot == [3, 1, 0]
        assert len(await actions(store)) == 1
