"""Two servers on one database, and a worker that belongs to both: one is killed, one stands still, and it goes on."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

from tests.daemon import WITHIN, Daemon, daemon
from tests.databases import Server
from tests.e2e.test_handover import ending, holder

SENTENCE = "Hello! I am a tiny model served by this cluster."
QUICK = ("--heartbeat-interval", "1")


@pytest.fixture(params=["postgresql", "mysql"])
def url(request: pytest.FixtureRequest, servers: Callable[[str], Server]) -> Iterator[str]:
    server = servers(request.param)
    made = server.create()
    yield made
    server.drop(made)


@attrs.define
class Cluster:
    folder: Path
    url: str
    stack: ExitStack

    def server(self, name: str, *arguments: str, wait: bool = True) -> Daemon:
        made = daemon(
            self.folder / name, "--disable-worker", *QUICK, *arguments,
            env={"GPUSTACK_DATABASE_URL": self.url}, wait=wait,
        )  # fmt: skip
        return self.stack.enter_context(made)

    def worker(self, name: str, home: Daemon) -> Daemon:
        token = (home.data_dir / "token").read_text().strip()
        made = daemon(
            self.folder / name, "--server-url", home.url, "--worker-ip", "127.0.0.1", "--worker-name", name,
            env={"GPUSTACK_TOKEN": token},
        )  # fmt: skip
        return self.stack.enter_context(made)


@pytest.fixture
def cluster(tmp_path: Path, url: str) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(tmp_path, url, stack)


def servers_of(one: Daemon) -> dict[str, dict[str, Any]]:
    """By address, as ``one`` knows them."""
    return {item["url"]: item for item in one.call("GET", "/v1/servers")[1]["items"]}


def leads(one: Daemon) -> bool:
    try:
        return bool(servers_of(one).get(one.url, {}).get("is_leading"))
    except OSError:
        return False


def chat(one: Daemon, key: str | None = None) -> str:
    answer = httpx.post(
        f"{one.url}/v1/chat/completions",
        json={"model": "tiny", "messages": [{"role": "user", "content": "Who are you?"}]},
        headers={"authorization": f"Bearer {key}"} if key else {},
        timeout=WITHIN,
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def as_key(one: Daemon, key: str) -> int:
    """What a key may do, asked from outside of this machine's trust."""
    headers = {"authorization": f"Bearer {key}", "x-real-ip": "9.9.9.9"}
    return one.call("GET", "/v1/users/me", headers=headers)[0]


@contextmanager
def asking(one: Daemon) -> Iterator[list[str]]:
    """A client that asks one server again and again for the length of the block; what it was answered."""
    answers: list[str] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                answers.append(chat(one))
            except (AssertionError, httpx.HTTPError) as error:
                answers.append(repr(error))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()


def placed(one: Daemon) -> list[tuple[int, int]]:
    """Every instance with its process, of those that are not on their way out."""
    return sorted((item["id"], item["pid"]) for item in one.instances() if not item.get("deleted_at"))


def gauge(one: Daemon) -> str:
    """Whether it leads, as Prometheus is told."""
    page = httpx.get(f"{one.exporter('server')}/metrics", timeout=WITHIN).text
    (line,) = [line for line in page.splitlines() if line.startswith("gpustack:server_leading{")]
    return line.rpartition(" ")[2].removesuffix(".0")


def usage_of(one: Daemon) -> int:
    rows = one.call("GET", "/v1/dashboard/usage")[1]["items"]
    return sum(int(row["request_count"]) for row in rows)


def test_one_is_killed_and_one_stands_still_and_nothing_is_lost_or_doubled(
    cluster: Cluster, tiny_model: Path
) -> None:
    first, second = cluster.server("one"), cluster.server("two")
    assert (first.data_dir / "token").read_text() == (second.data_dir / "token").read_text()
    assert leads(first)
    second.until(lambda: servers_of(second)[first.url]["is_leading"], "word of who leads")
    worker = cluster.worker("w", first)
    source = {"source": "local_path", "local_path": str(tiny_model), "backend_parameters": ["-c", "512"]}
    assert second.call("POST", "/v1/models", {"name": "tiny", **source})[0] == 200
    for one in (first, second):
        one.running("tiny")
    before = placed(first)
    assert chat(first) == chat(second) == SENTENCE

    # what one says of people holds at the other: at once what is given, within a second what is taken
    key = first.call("POST", "/v1/api-keys", {"name": "k"})[1]["value"]
    assert as_key(second, key) == 200, "a key is good everywhere as soon as it is shown"
    made = second.call("POST", "/v1/users", {"username": "bob", "password": "Long_enough_1"})[1]
    assert first.call("GET", f"/v1/users/{made['id']}")[0] in (200, 404)
    bobs = as_basic(second)
    assert first.until(lambda: bobs(first) == 200, "that bob may come in")
    assert first.call("PUT", f"/v1/users/{made['id']}", {"is_active": False})[0] == 200
    told = time.monotonic()
    second.until(lambda: bobs(second) == 401, "that bob may not come in any more")
    print(f"disabled there {time.monotonic() - told:.2f} s later")

    # the leader is killed
    worker.until(lambda: second.url in worker.log, "word of the other server")
    with asking(second) as answers:
        first.process.kill()
        first.process.wait()
        killed = time.monotonic()
        assert (
            second.call("PUT", f"/v1/models/{model_id(second)}", {"name": "tiny", "replicas": 2, **source})[0]
            == 200
        )
        second.until(lambda: leads(second), "a new leader")
        took = time.monotonic() - killed
        second.running("tiny", 2)
    print(f"taken over after {took:.1f} s")
    assert took < 15
    assert set(answers) == {SENTENCE}
    assert before[0] in placed(second), "what ran runs on"
    assert len(placed(second)) == 2
    (record,) = second.call("GET", "/v1/workers")[1]["items"]
    assert record["state"] == "ready"

    # it comes back and follows
    first = cluster.server("one")
    assert leads(second) and not leads(first)
    first.running("tiny", 2)
    assert [gauge(one) for one in (first, second)] == ["0", "1"]
    assert chat(first) == SENTENCE
    two = placed(first)
    assert len(two) == 2
    worker.until(lambda: first.url in worker.log, "word of where it is now")

    # the leader stands still for longer than its lease, with a wish on its way
    second.process.send_signal(signal.SIGSTOP)
    try:
        first.until(lambda: leads(first), "a leader in its place")
        first.until(lambda: not servers_of(first)[second.url]["is_live"], "that it is missed")
        assert first.call("POST", "/v1/models", {"name": "more", "replicas": 1, **source})[0] == 200
        first.running("more")
    finally:
        second.process.send_signal(signal.SIGCONT)
    second.until(lambda: "leads no more" in second.log, "that it learns of it")
    second.until(lambda: servers_of(second)[first.url]["is_leading"], "that it follows")
    assert second.call("POST", "/v1/models", {"name": "late", "replicas": 1, **source})[0] == 200
    for one in (first, second):
        one.running("late")
    assert placed(first) == placed(second)
    assert {(i["model_name"], i["state"]) for i in first.instances()} == {
        ("tiny", "running"), ("more", "running"), ("late", "running"),
    }  # fmt: skip
    assert len(placed(first)) == 4 and set(two) <= set(placed(first))

    # both counted, and it adds up; who is killed loses what it counted in its last seconds
    asked = 3 + len(answers)
    first.until(lambda: asked - 1 <= usage_of(first) == usage_of(second) <= asked, "all that was counted")
    assert "Traceback" not in first.log + second.log + worker.log
    secret = cluster.url.rpartition("@")[0].rpartition(":")[2]
    for one in (first, second):
        assert secret not in one.log
        assert (one.data_dir / "token").read_text().strip() not in one.log


def as_basic(_: Daemon) -> Callable[[Daemon], int]:
    import base64

    shown = base64.b64encode(b"bob:Long_enough_1").decode()
    return lambda one: one.call(
        "GET", "/v1/users/me", headers={"authorization": f"Basic {shown}", "x-real-ip": "9.9.9.9"}
    )[0]


def model_id(one: Daemon) -> int:
    return int(one.call("GET", "/v1/models")[1]["items"][0]["id"])


def test_who_starts_stops_and_reloads_fits_in_with_the_others(
    servers: Callable[[str], Server], tmp_path: Path
) -> None:
    """No other token is slipped in, a reload gives the lead away at once, a worker starts without its server."""
    server = servers("postgresql")
    url = server.create()
    with ExitStack() as stack:
        cluster = Cluster(tmp_path, url, stack)
        first, second = cluster.server("one"), cluster.server("two")
        stack.enter_context(ending(first.data_dir))
        worker = cluster.worker("w", first)
        worker.until(lambda: second.url in worker.log, "word of the other server")
        worker.stop()
        workers = lambda: second.call("GET", "/v1/workers")[1]["items"]  # noqa: E731
        told = lambda: [(one["state"], one["state_message"]) for one in workers()]  # noqa: E731
        # What one server has taken in the other shows within half a second.
        second.until(lambda: told() == [("not_ready", "its daemon was stopped")], "word that it stopped")
        (stopped,) = workers()

        third = cluster.server("three", "--token", "one-that-differs", wait=False)
        assert third.process.wait(WITHIN) == 1
        assert "gpustack: --token differs from that of the other servers" in third.log
        assert "Traceback" not in third.log and "one-that-differs" not in third.log

        assert leads(first)
        first.process.send_signal(signal.SIGHUP)
        second.until(lambda: holder(first.data_dir) != first.process.pid, "the daemon after it")
        # Whoever looks first: the other server, or the new daemon of this one.
        second.until(lambda: re.search("leads.*: .*term=2", second.log), "another term after the reload")
        second.until(lambda: leads(first) or leads(second), "a leader after the reload")
        first.process.wait(WITHIN)

        os.kill(holder(first.data_dir), signal.SIGKILL)
        second.until(lambda: leads(second), "that it leads when it is alone")
        joined = worker.log.count("Joined")
        worker = cluster.worker("w", first)
        worker.until(lambda: worker.log.count("Joined") > joined, "that another server takes it in")
        second.until(lambda: [one["state"] for one in workers()] == ["ready"], "that it is ready again")
        assert [one["id"] for one in workers()] == [stopped["id"]]
    server.drop(url)


def test_a_server_with_a_worker_that_leaves_says_so_and_its_worker_gets_nothing_more(
    servers: Callable[[str], Server], tmp_path: Path
) -> None:
    server = servers("postgresql")
    url = server.create()
    with ExitStack() as stack:
        both = [
            stack.enter_context(
                daemon(
                    tmp_path / name, "--worker-ip", "127.0.0.1", "--worker-name", name, *QUICK,
                    env={"GPUSTACK_DATABASE_URL": url},
                )
            )
            for name in ("one", "two")
        ]  # fmt: skip
        stays, leaves = both

        def states() -> dict[str, tuple[str, str]]:
            items = stays.call("GET", "/v1/workers")[1]["items"]
            return {item["name"]: (item["state"], item["state_message"]) for item in items}

        stays.until(lambda: {one[0] for one in states().values()} == {"ready"} and len(states()) == 2, "both")
        assert leaves.stop() == 0
        # The server that stays hears of it from the database, soon.
        stays.until(lambda: states()["two"] == ("not_ready", "its daemon was stopped"), "the goodbye")
        assert states()["one"][0] == "ready"
    server.drop(url)


@pytest.mark.attack("mistake")
def test_a_reload_with_a_token_that_differs_leaves_the_old_daemon_serving(
    servers: Callable[[str], Server], tmp_path: Path
) -> None:
    server = servers("postgresql")
    url = server.create()
    config = tmp_path / "config.yaml"
    config.write_text("debug: false\n")
    with ExitStack() as stack:
        cluster = Cluster(tmp_path, url, stack)
        first = cluster.server("one", "--config-file", str(config))
        stack.enter_context(ending(first.data_dir))
        second = cluster.server("two")
        first.until(lambda: second.url in first.log, "word of the other server")
        config.write_text("token: one-that-differs\n")
        first.process.send_signal(signal.SIGHUP)
        first.until(lambda: "this one goes on" in first.log, "the sentence")
        assert "--token differs from that of the other servers" in first.log
        assert "Traceback" not in first.log and "one-that-differs" not in first.log
        assert first.call("GET", "/readyz")[0] == 200
        assert holder(first.data_dir) == first.process.pid
    server.drop(url)
