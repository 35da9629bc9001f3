"""The live tree, drawn."""

from __future__ import annotations

from typing import Any

import trio

from gpustack.nursery import draw_tree, function_service, open_tier, tree


async def _idle(*, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
    task_status.started()
    await trio.sleep_forever()


async def _instances(*, task_status: trio.TaskStatus[Any]) -> None:
    async with trio.open_nursery() as nursery:
        for name in ("qwen3-8b-0", "bge-m3-0"):
            nursery.start_soon(_idle, name=f"instance:{name}")
        task_status.started()
        await trio.sleep_forever()


async def test_tiers_and_services_are_drawn_by_name() -> None:
    async def main(*, task_status: trio.TaskStatus[trio.lowlevel.Task]) -> None:
        async with open_tier("state") as state:
            await state.start(function_service("usage flush", _idle))
            async with open_tier("work") as work, open_tier("traffic"):
                await work.start(function_service("heartbeat", _idle))
                await work.start(function_service("instances", _instances))
                task_status.started(trio.lowlevel.current_task())
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        task = await nursery.start(main, name="daemon")
        await trio.lowlevel.checkpoint()
        assert draw_tree(task).splitlines() == [
            "daemon",
            "├─ state",
            "│  └─ usage flush",
            "├─ work",
            "│  ├─ heartbeat",
            "│  └─ instances",
            "│     ├─ instance:bge-m3-0",
            "│     └─ instance:qwen3-8b-0",
            "└─ traffic",
        ]
        assert tree(task)["children"][0] == {
            "name": "state",
            "children": [{"name": "usage flush", "children": []}],
        }
        nursery.cancel_scope.cancel()
