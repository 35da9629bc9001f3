"""``gpustack run`` of repositories, against a hub on loopback that the server asks for us."""

from __future__ import annotations

from pathlib import Path

from tests.cli.shell import SENTENCE, Shell
from tests.fakes.hub import Hub
from tests.fakes.modelscope import ModelScopeSite


def test_a_gguf_repository_without_a_tag_runs_and_says_which_file(
    hub: Hub, shell: Shell, tiny_model: Path
) -> None:
    names = ("b-Q2_K.gguf", "b-Q4_K_M.gguf", "b-q8_0.gguf")
    hub.add("a/b-GGUF", {**dict.fromkeys(names, tiny_model), "README.md": b"x"})
    ran = shell("run", "a/b-GGUF", "Who are you?")
    assert (ran.returncode, ran.stdout) == (0, f"{SENTENCE}\n"), ran.stderr
    assert "Taking Q4_K_M (" in ran.stderr and "others are a/b-GGUF:TAG (q8_0, Q2_K)" in ran.stderr
    assert "a/b-GGUF:*Q4_K_M*.gguf" in shell.good("ls")
    again = shell("run", "a/b-GGUF", "Who are you?")
    assert again.returncode == 0 and "Taking" not in again.stderr, "the one that is deployed"
    assert "name b is taken by another model" in shell.bad("run", "a/b-GGUF:Q8_0")
    shell.good("run", "a/b-GGUF:Q8_0", "--name=eight", "-d")
    assert "a/b-GGUF:*q8_0*.gguf" in shell.good("ls"), "case does not count"
    shell.good("rm", "b", "eight")


def test_a_tag_that_does_not_exist_is_refused_with_those_that_do(
    hub: Hub, shell: Shell, tiny_model: Path
) -> None:
    hub.add("a/c-GGUF", {"c-Q6_K.gguf": tiny_model, "c-Q8_0.gguf": tiny_model})
    assert shell.bad("run", "a/c-GGUF:Q9") == "gpustack: There is no Q9 in a/c-GGUF; there are Q6_K, Q8_0\n"
    assert shell.good("ls", "-q") == ""


def test_a_repository_that_is_not_there_or_has_no_gguf_says_so(hub: Hub, shell: Shell) -> None:
    assert "There is no repository no/such-GGUF on the hub" in shell.bad("run", "no/such-GGUF:Q8_0")
    hub.add("a/safe", {"model.safetensors": b"x" * 16, "config.json": b"{}"})
    ran = shell("run", "a/safe")
    assert ran.returncode == 1 and "The header of model.safetensors cannot be read" in ran.stderr
    assert "a/safe has no GGUF file, and no file Q8_0" in shell.bad("run", "a/safe:Q8_0")
    assert shell.good("ls", "-q") == ""


def test_a_repository_of_gguf_files_need_not_say_so_in_its_name(
    hub: Hub, shell: Shell, tiny_model: Path
) -> None:
    hub.add("a/plain", {"plain.Q5_K_M.gguf": tiny_model, "plain.Q4_0.gguf": tiny_model})
    ran = shell("run", "-d", "https://huggingface.co/a/plain/blob/main/plain.Q5_K_M.gguf")
    assert ran.returncode == 0, ran.stderr
    assert "a/plain:*Q5_K_M*.gguf" in shell.good("ls")
    shell.good("rm", "plain")


def test_a_hub_that_does_not_answer_now_is_left_to_whoever_fetches(
    hub: Hub, shell: Shell, tiny_model: Path
) -> None:
    hub.add("a/away-GGUF", {"away-Q4_K_M.gguf": tiny_model})
    hub.fail("refuse", path="/api/models/a/away-GGUF", status=500, times=1)
    ran = shell("run", "-d", "a/away-GGUF")
    assert ran.returncode == 0, ran.stderr
    assert "The hub does not list a/away-GGUF now. Taking Q4_K_M" in ran.stderr
    shell.good("rm", "away")


def test_a_repository_of_modelscope_runs_as_one_of_the_hub_does(
    modelscope: ModelScopeSite, shell: Shell, tiny_model: Path
) -> None:
    whole = tiny_model.read_bytes()
    modelscope.add(
        "a/scoped-GGUF", {"scoped-Q4_K_M.gguf": whole, "scoped-Q8_0.gguf": whole, "README.md": b"x"}
    )
    ran = shell("run", "ms:a/scoped-GGUF", "Who are you?")
    assert (ran.returncode, ran.stdout) == (0, f"{SENTENCE}\n"), ran.stderr
    assert "Taking Q4_K_M (" in ran.stderr and "others are a/scoped-GGUF:TAG (Q8_0)" in ran.stderr
    assert "ms:a/scoped-GGUF:*Q4_K_M*.gguf" in shell.good("ls")
    shell.good("rm", "scoped")
