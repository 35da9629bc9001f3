"""The fake hub answers the real client as the real hub does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.child import child, said
from tests.fakes.hub import Hub, running_hub

WEIGHTS = bytes(range(256)) * 4096
FILES: dict[str, bytes | Path] = {
    "config.json": b'{"model_type": "llama"}',
    "model-q4.gguf": WEIGHTS,
    "deep/er/vocab.txt": b"a\nb\n",
}


@pytest.fixture
def api(hub: Hub) -> HfApi:
    hub.add("me/model", FILES)
    return HfApi(endpoint=hub.url, token=False)


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(follow_redirects=True) as client:
        yield client


def test_a_model_is_described_with_sizes_and_hashes(hub: Hub, api: HfApi) -> None:
    found = api.model_info("me/model", files_metadata=True)
    assert found.sha == hub.repositories["me/model"].main
    weights = next(s for s in found.siblings or [] if s.rfilename == "model-q4.gguf")
    assert weights.size == len(WEIGHTS)
    assert weights.lfs is not None
    assert weights.lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert api.model_info("me/model", revision=found.sha).sha == found.sha


def test_trees_come_in_pages(hub: Hub, api: HfApi) -> None:
    hub.page = 2
    tree = {entry.path for entry in api.list_repo_tree("me/model", recursive=True)}
    assert tree == {*FILES, "deep", "deep/er"}
    assert {entry.path for entry in api.list_repo_tree("me/model")} == {
        "config.json",
        "model-q4.gguf",
        "deep",
    }
    assert [entry.path for entry in api.list_repo_tree("me/model", "deep/er")] == ["deep/er/vocab.txt"]


def test_paths_and_refs_are_told(hub: Hub, api: HfApi) -> None:
    (found,) = api.get_paths_info("me/model", ["config.json", "absent"])
    assert found.path == "config.json"
    (branch,) = api.list_repo_refs("me/model").branches
    assert branch.target_commit == hub.repositories["me/model"].main


@pytest.mark.parametrize("path", sorted(FILES))
def test_the_real_client_downloads_what_was_put_there(
    hub: Hub, api: HfApi, tmp_path: Path, path: str
) -> None:
    local = hf_hub_download("me/model", path, endpoint=hub.url, cache_dir=tmp_path, token=False)
    assert Path(local).read_bytes() == FILES[path]
    assert hub.full_downloads(path) == 1


def test_old_commits_stay_reachable(hub: Hub, api: HfApi) -> None:
    old = hub.repositories["me/model"].main
    new = hub.add("me/model", {"only.txt": b"new"})
    assert api.list_repo_files("me/model", revision=old) == sorted(FILES)
    assert api.list_repo_files("me/model", revision=new) == ["only.txt"]


def test_what_is_not_there_is_named(hub: Hub, api: HfApi, tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("me/absent")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("me/model", revision="absent")
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download("me/model", "absent", endpoint=hub.url, cache_dir=tmp_path, token=False)


def test_a_gated_model_opens_to_the_right_token_only(hub: Hub, tmp_path: Path) -> None:
    hub.add("me/secret", FILES, gated=True)
    hub.tokens = {"right": {"me/secret"}, "other": set()}
    for token, status in ((False, 401), ("other", 403)):
        with pytest.raises(GatedRepoError) as refused:
            HfApi(endpoint=hub.url, token=token).get_hf_file_metadata(
                url=f"{hub.url}/me/secret/resolve/main/model-q4.gguf"
            )
        assert refused.value.response.status_code == status
    hf_hub_download("me/secret", "model-q4.gguf", endpoint=hub.url, cache_dir=tmp_path, token="right")
    assert HfApi(endpoint=hub.url, token="other").model_info("me/secret").gated == "manual"


def test_a_wrong_token_and_a_private_model_are_refused(hub: Hub) -> None:
    hub.add("me/private", FILES, private=True)
    hub.tokens = {"right": {"*"}}
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        HfApi(endpoint=hub.url, token="wrong").model_info("me/private")
    with pytest.raises(RepositoryNotFoundError):
        HfApi(endpoint=hub.url, token=False).model_info("me/private")
    assert HfApi(endpoint=hub.url, token="right").model_info("me/private").private


def test_the_content_network_refuses_the_hubs_token(hub: Hub, api: HfApi, client: httpx.Client) -> None:
    place = httpx.head(f"{hub.url}/me/model/resolve/main/model-q4.gguf").headers["Location"]
    assert client.get(place, headers={"Authorization": "Bearer any"}).status_code == 400
    assert client.get(place).content == WEIGHTS


def test_ranges_are_served_and_noted(hub: Hub, api: HfApi, client: httpx.Client) -> None:
    address = f"{hub.url}/me/model/resolve/main/model-q4.gguf"
    part = client.get(address, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, WEIGHTS[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(WEIGHTS)}"
    assert client.get(address, headers={"Range": "bytes=-4"}).content == WEIGHTS[-4:]
    assert client.get(address, headers={"Range": f"bytes={len(WEIGHTS)}-"}).status_code == 416
    assert [request.range for request in hub.bodies("*.gguf")] == ["bytes=10-19", "bytes=-4"]
    assert hub.full_downloads() == 0


def test_bodies_break_in_every_way_asked_for(hub: Hub, api: HfApi, client: httpx.Client) -> None:
    address = f"{hub.url}/me/model/resolve/main/model-q4.gguf"
    for kind in ("reset", "truncate"):
        hub.fail(kind, at=1000)
        with pytest.raises(httpx.TransportError):
            client.get(address)
        assert (hub.bodies()[-1].sent, hub.bodies()[-1].complete) == (1000, False)
    hub.fail("corrupt", at=5)
    spoilt = client.get(address).content
    assert [i for i, (a, b) in enumerate(zip(spoilt, WEIGHTS, strict=True)) if a != b] == [5]
    hub.fail("refuse", status=429, retry_after=3, times=1, path="*.gguf")
    refused = client.get(address)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "3")
    hub.fail("ignore_range")
    assert client.get(address, headers={"Range": "bytes=5-"}).status_code == 200
    hub.fail("wrong_hash")
    assert httpx.head(address).headers["X-Linked-Etag"] == '"' + "0" * 64 + '"'
    assert client.get(address).content == WEIGHTS


def test_a_held_body_goes_on_when_released(hub: Hub, api: HfApi, client: httpx.Client) -> None:
    hub.fail("hold", at=2000)
    with client.stream("GET", f"{hub.url}/me/model/resolve/main/model-q4.gguf") as answer:
        pieces = answer.iter_raw(1000)
        start = next(pieces) + next(pieces)
        hub.wait(lambda: hub.holding == 1)
        hub.release()
        assert start + b"".join(pieces) == WEIGHTS


def test_the_client_survives_a_body_that_was_cut_short(hub: Hub, api: HfApi, tmp_path: Path) -> None:
    hub.fail("truncate", at=100_000)
    local = hf_hub_download("me/model", "model-q4.gguf", endpoint=hub.url, cache_dir=tmp_path, token=False)
    assert Path(local).read_bytes() == WEIGHTS


def test_as_a_program_it_serves_a_folder(tmp_path: Path) -> None:
    (tmp_path / "me" / "model").mkdir(parents=True)
    (tmp_path / "me" / "model" / "config.json").write_text("{}")
    with child(["-m", "tests.fakes.hub", "--root", str(tmp_path)]) as program:
        url = said(program).removeprefix("listening on ")
        assert HfApi(endpoint=url, token=False).list_repo_files("me/model") == ["config.json"]


def test_two_hubs_know_nothing_of_each_other(hub: Hub) -> None:
    hub.add("me/model", FILES)
    with running_hub() as other:
        assert other.url != hub.url
        assert not other.repositories
