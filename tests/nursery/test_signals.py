"""A real daemon, sent real signals."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import trio

DAEMON = textwrap.dedent("""
    import trio
    from gpustack.nursery import Signals, open_tier

    async def main():
        stop = trio.Event()
        with trio.CancelScope() as scope:
            async with open_tier("state") as state:
                def say(text):
                    print(text, flush=True)
                def at_once():
                    say("at once")
                    scope.cancel()
                await state.start(Signals(drain=lambda: say("drain"), at_once=at_once,
                                          hand_over=lambda: say("hand over"), write=say))
                say("up")
                await trio.sleep_forever()
        say("down")

    trio.run(main)
""")


async def _read_until(stream: trio.abc.ReceiveStream, word: bytes) -> str:
    got = b""
    while word not in got:
        piece = await stream.receive_some()
        assert piece, f"ended after {got!r}"
        got += piece
    return got.decode()


async def test_signals_become_calls() -> None:
    with trio.fail_after(30):
        daemon = await trio.lowlevel.open_process([sys.executable, "-c", DAEMON], stdout=subprocess.PIPE)
        try:
            out = daemon.stdout
            assert out is not None
            async with out:
                await _read_until(out, b"up\n")
                daemon.send_signal(signal.SIGUSR1)
                assert "└─ signals" in await _read_until(out, b"signals\n")
                daemon.send_signal(signal.SIGHUP)
                await _read_until(out, b"hand over\n")
                daemon.send_signal(signal.SIGTERM)
                await _read_until(out, b"drain\n")
                daemon.send_signal(signal.SIGINT)
                await _read_until(out, b"at once\ndown\n")
                assert await daemon.wait() == 0
        finally:
            daemon.kill()
            with trio.CancelScope(shield=True):
                await daemon.wait()
