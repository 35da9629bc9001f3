"""A hub's repository is listed by its own client, and each way it can fail is a sentence."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import trio

from gpustack.artifacts.listing import Listing
from gpustack.artifacts.source import DEFAULT_PROJECTOR, SourceSettings, source_for
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.errors import (
    BadRequest,
    Forbidden,
    GatewayTimeout,
    GpustackError,
    Invalid,
    NotFound,
    TooManyRequests,
    Unavailable,
)
from tests.fakes.hub import Hub

GGUF: dict[str, bytes | Path] = {
    "README.md": b"#",
    "m-Q4_K_M.gguf": b"four",
    "m-Q8_0-00001-of-00002.gguf": b"eight",
    "m-Q8_0-00002-of-00002.gguf": b"ate",
    "mmproj-m-f16.gguf": b"proj",
}
SNAPSHOT: dict[str, bytes | Path] = {
    "README.md": b"#",
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": b"a",
    "model-00002-of-00002.safetensors": b"bb",
    "pytorch_model.bin": b"old",
    "original/consolidated.pth": b"older",
    "tokenizer.json": b"{}",
}


async def resolve(
    hub: Hub,
    pattern: str | None = None,
    *,
    repo: str = "me/m",
    revision: str | None = None,
    token: str | None = None,
    projector: str | None = DEFAULT_PROJECTOR,
    deadline: float = 60.0,
) -> Listing:
    source = ModelSource(
        kind=SourceKind.HUGGING_FACE,
        huggingface_repo_id=repo,
        huggingface_filename=pattern,
        revision=revision,
    )
    settings = SourceSettings(endpoint=hub.url, token=token, projector=projector, deadline=deadline)
    with trio.fail_after(60):
        return await source_for(source.kind).resolve(source, settings)


async def test_a_pattern_gives_the_model_and_its_projector_pinned_to_the_commit(hub: Hub) -> None:
    commit = hub.add("me/m", GGUF)
    found = await resolve(hub, "*Q4_K_M*.gguf")
    assert (found.folder, found.main, found.mmproj) == (
        "huggingface/me/m",
        "m-Q4_K_M.gguf",
        "mmproj-m-f16.gguf",
    )
    assert found.revision == commit
    model = found.file("m-Q4_K_M.gguf")
    stored = hub.repositories["me/m"].commits[commit]["m-Q4_K_M.gguf"]
    assert (model.size, model.sha256) == (4, stored.sha256)
    assert model.url == f"{hub.url}/me/m/resolve/{commit}/m-Q4_K_M.gguf"
    assert model.headers == {}


async def test_the_projector_can_be_left_out(hub: Hub) -> None:
    hub.add("me/m", GGUF)
    found = await resolve(hub, "*Q8_0*", projector=None)
    assert [file.name for file in found.files] == ["m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"]
    assert found.mmproj is None


async def test_a_snapshot_leaves_out_what_no_engine_reads(hub: Hub) -> None:
    hub.add("me/m", SNAPSHOT)
    found = await resolve(hub)
    assert found.main is None
    assert [file.name for file in found.files] == [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "tokenizer.json",
    ]
    assert found.file("config.json").git_sha1 is not None


async def test_pickles_are_fetched_only_when_they_are_named(hub: Hub) -> None:
    hub.add("me/m", {"config.json": b"{}", "pytorch_model.bin": b"old"})
    with pytest.raises(BadRequest, match=r"me/m has its weights as pickles only"):
        await resolve(hub)
    assert [file.name for file in (await resolve(hub, "*.bin")).files] == ["pytorch_model.bin"]


async def test_a_repository_with_one_gguf_model_needs_no_pattern(hub: Hub) -> None:
    hub.add("me/m", {"README.md": b"", "only.gguf": b"x"})
    assert (await resolve(hub)).main == "only.gguf"


async def test_a_revision_has_a_folder_of_its_own(hub: Hub) -> None:
    hub.add("me/m", GGUF)
    commit = hub.add("me/m", {"m-Q4_K_M.gguf": b"other"}, branch="refs-pr-1")
    found = await resolve(hub, "*Q4_K_M*", revision="refs-pr-1")
    assert (found.folder, found.revision) == ("huggingface/me/m@refs-pr-1", commit)
    assert (await resolve(hub, "*Q4_K_M*", revision="main")).folder == "huggingface/me/m"


@pytest.mark.attack("secret")
async def test_a_token_goes_into_the_headers_of_the_files_and_into_no_repr(hub: Hub) -> None:
    hub.tokens["hf_secret"] = {"*"}
    hub.add("me/m", GGUF, gated=True)
    found = await resolve(hub, "*Q4_K_M*", token="hf_secret")
    assert found.files[0].headers == {"authorization": "Bearer hf_secret"}
    assert "hf_secret" not in repr(found) + repr(SourceSettings(token="hf_secret"))


async def test_a_pattern_that_matches_nothing_says_what_there_is(hub: Hub) -> None:
    hub.add("me/m", GGUF)
    with pytest.raises(NotFound, match=r"'\*Q5\*' in me/m; there are m-Q4_K_M\.gguf, m-Q8_0\.gguf"):
        await resolve(hub, "*Q5*")


async def test_a_repository_that_is_not_there_is_told(hub: Hub) -> None:
    with pytest.raises(NotFound, match=r"no repository me/absent .* --huggingface-token"):
        await resolve(hub, repo="me/absent")
    hub.tokens["hf_some"] = set()
    with pytest.raises(NotFound, match="that the token of --huggingface-token may see"):
        await resolve(hub, repo="me/absent", token="hf_some")


async def test_a_revision_that_is_not_there_is_told(hub: Hub) -> None:
    hub.add("me/m", GGUF)
    with pytest.raises(NotFound, match=r"me/m on .* has no revision 'v9'"):
        await resolve(hub, revision="v9")


async def test_a_token_the_hub_does_not_know_is_told(hub: Hub) -> None:
    hub.add("me/m", GGUF)
    with pytest.raises(Forbidden, match="token of --huggingface-token"):
        await resolve(hub, token="hf_wrong")


@pytest.mark.parametrize(
    ("status", "kind"), [(429, TooManyRequests), (500, Unavailable), (503, Unavailable), (403, Forbidden)]
)
async def test_a_hub_that_refuses_is_told(hub: Hub, status: int, kind: type[GpustackError]) -> None:
    hub.add("me/m", GGUF)
    hub.fail("refuse", path="/api/*", status=status, times=100)
    with pytest.raises(kind, match=r"me/m|too many requests"):
        await resolve(hub)


async def test_a_hub_that_cannot_be_reached_is_told_with_the_ways_round_it(hub: Hub, free_port: int) -> None:
    hub.url = f"http://127.0.0.1:{free_port}"
    with pytest.raises(Unavailable, match=r"cannot be reached .* set HF_ENDPOINT to a mirror"):
        await resolve(hub)


async def test_a_hub_whose_name_nobody_knows_is_told_without_the_number_of_the_error(hub: Hub) -> None:
    hub.url = "http://hub.invalid"
    with pytest.raises(Unavailable, match=r"http://hub\.invalid cannot be reached \((?!\[Errno)"):
        await resolve(hub)


class Welcome(BaseHTTPRequestHandler):
    """A router's log-in page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>Welcome!</html>")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.attack("hub")
async def test_something_that_is_no_hub_is_told(hub: Hub) -> None:
    with HTTPServer(("127.0.0.1", 0), Welcome) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        hub.url = f"http://127.0.0.1:{listener.server_address[1]}"
        with pytest.raises(Unavailable, match="does not answer like a model hub: check HF_ENDPOINT"):
            await resolve(hub)
        listener.shutdown()
        await trio.to_thread.run_sync(thread.join, 10)


@pytest.mark.attack("hub")
async def test_a_hub_that_does_not_answer_costs_the_deadline(hub: Hub) -> None:
    hub.add("me/m", GGUF)
    with pytest.raises(GatewayTimeout, match="did not list me/m within 0 s"):
        await resolve(hub, deadline=0.0)


@pytest.mark.attack("traversal")
@pytest.mark.parametrize(
    "repo", ["", "a/b/c", "../x", "a/..", "a b/c", "http://x/y", "me/m?x", "me/m--x", "/m"]
)
async def test_a_name_that_is_no_repository_is_refused_before_anybody_is_asked(hub: Hub, repo: str) -> None:
    with pytest.raises(Invalid, match="huggingface_repo_id"):
        await resolve(hub, repo=repo)
    assert hub.log == []


@pytest.mark.attack("ssrf")
@pytest.mark.parametrize("endpoint", ["ftp://x", "file:///etc", "nothing", "http://", "http://h/x?y"])
async def test_an_endpoint_that_is_not_http_is_refused(hub: Hub, endpoint: str) -> None:
    hub.url = endpoint
    with pytest.raises(Invalid, match="HF_ENDPOINT must be"):
        await resolve(hub)


@pytest.mark.parametrize("heads", [True, False])
@pytest.mark.parametrize("links", [True, False])
async def test_sizes_that_a_mirror_does_not_list_are_asked_of_the_files(
    hub: Hub, heads: bool, links: bool
) -> None:
    """By HEAD, and where that is not answered by a plain GET; with the hub's own headers or without."""
    hub.add("me/m", {**GGUF, "m-Q4_K_M.gguf": b"four bits"})
    hub.tells_sizes, hub.heads, hub.links = False, heads, links
    found = await resolve(hub, "*Q4_K_M*")
    assert {file.name: file.size for file in found.files} == {"m-Q4_K_M.gguf": 9, "mmproj-m-f16.gguf": 4}
    assert all((file.sha256 is not None) == links for file in found.files)
    assert any(request.method == "HEAD" for request in hub.log)
    assert any(request.method == "GET" and request.route != "api" for request in hub.log) != heads


@pytest.mark.parametrize("heads", [True, False])
async def test_small_files_of_such_a_mirror_are_measured_too_and_so_are_empty_ones(
    hub: Hub, heads: bool
) -> None:
    hub.add("me/m", {**SNAPSHOT, "merges.txt": b""})
    hub.tells_sizes, hub.heads = False, heads
    found = await resolve(hub)
    assert (found.file("config.json").size, found.file("merges.txt").size) == (2, 0)


@pytest.mark.attack("secret")
async def test_the_token_is_shown_to_the_hub_alone_when_sizes_are_asked(hub: Hub) -> None:
    hub.tokens["hf_secret"] = {"*"}
    hub.add("me/m", GGUF, gated=True)
    hub.tells_sizes = hub.links = False
    await resolve(hub, "*Q4_K_M*", token="hf_secret")
    asked = [request for request in hub.log if request.route != "api"]
    assert {(request.route, request.authorized) for request in asked} == {("resolve", True), ("cdn", False)}
    with pytest.raises(Forbidden):
        await resolve(hub, "*Q4_K_M*")


async def test_what_lies_beside_a_model_does_not_confuse(hub: Hub) -> None:
    hub.add("me/m", {
        "m.gguf": b"model", "imatrix.gguf": b"i", "m-imatrix.gguf": b"i", "imatrix.bin": b"i", "imatrix.dat": b"i",
        "LICENSE": b"l", "config.json": b"{}", "params.bin": b"p",
    })  # fmt: skip
    for pattern in (None, "*.gguf", "M.GGUF"):
        assert [file.name for file in (await resolve(hub, pattern)).files] == ["m.gguf"]


@pytest.mark.attack("secret")
@pytest.mark.parametrize(
    "token", ["hf_Hunter2\n", "hf_Hunter2\r\nx: y", "hf_Hunter2\u00e9", "hf_Hunter2\x00"]
)
async def test_a_token_that_no_header_holds_stands_in_no_message(hub: Hub, token: str) -> None:
    hub.add("me/m", GGUF)
    with pytest.raises(GpustackError) as caught:
        await resolve(hub, "*Q4_K_M*.gguf", token=token)
    assert "Hunter2" not in str(caught.value)


@pytest.mark.attack("secret")
async def test_the_password_of_a_mirror_stands_in_no_message(free_port: int) -> None:
    source = ModelSource(
        kind=SourceKind.HUGGING_FACE, huggingface_repo_id="me/m", huggingface_filename="m.gguf"
    )
    for place in (f"127.0.0.1:{free_port}", "127.0.0.1:port", "[::1"):
        settings = SourceSettings(endpoint=f"http://me:Hunter2@{place}", deadline=20.0)
        with pytest.raises(GpustackError) as caught:
            await source_for(source.kind).resolve(source, settings)
        assert "Hunter2" not in str(caught.value)
