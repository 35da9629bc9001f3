"""Variables that are no option, in the environment of a daemon and in that of a model."""

from __future__ import annotations

from pathlib import Path

from tests.daemon import daemon
from tests.options.spelling import spelled
from tests.options.stream import endless_model, stream_of

GIB = 1 << 30


def test_the_gateway_waits_as_long_and_takes_in_as_many_as_told(tmp_path: Path) -> None:
    """By default an engine may be silent for half an hour, and there is no limit."""
    env = {"GPUSTACK_PROXY_TIMEOUT_SECONDS": "1", "GPUSTACK_TCP_CONNECTOR_LIMIT": "1"}
    with daemon(tmp_path / "data", env=env) as one:
        silent = {**endless_model("--latency", "600"), "name": "silent"}
        for model in (endless_model(), silent):
            assert one.call("POST", "/v1/models", model)[0] == 200
        one.running("endless")
        one.running("silent")
        asked = {"model": "silent", "messages": [{"role": "user", "content": "Are you there?"}]}
        with stream_of(one.url) as stream:
            assert stream.readline().startswith(b"data:")
            status, answer = one.call("POST", "/v1/chat/completions", asked)
            assert status == 503
            assert "as many as GPUSTACK_TCP_CONNECTOR_LIMIT allows" in answer["error"]["message"]
        assert one.until(lambda: one.call("POST", "/v1/chat/completions", asked)[0] == 504, "the timeout")


def test_the_claims_of_a_model_are_what_is_set_aside_for_it(tmp_path: Path) -> None:
    """Engines of ours are asked nothing of, so that nothing but the claims could say this."""
    card = {"name": "A card", "vendor": "NVIDIA", "index": 0, "memory": {"total": 8 * GIB}}
    arguments, env = spelled("environment", tmp_path, {"resources": {"gpu_devices": [card]}})
    with daemon(tmp_path / "data", *arguments, env=env) as one:
        claims = {"GPUSTACK_MODEL_VRAM_CLAIM": str(3 * GIB), "GPUSTACK_MODEL_RAM_CLAIM": "1000"}
        model = endless_model()
        status, answer = one.call("POST", "/v1/models", {**model, "env": {**model["env"], **claims}})
        assert status == 200, answer
        (instance,) = one.running("endless")
        claim = instance["computed_resource_claim"]
        assert (claim["ram"], claim["vram"]) == (1000, {"0": 3 * GIB})
        assert instance["gpu_indexes"] == [0]
        status, answer = one.call(
            "POST", "/v1/models", {**model, "name": "x", "env": {"GPUSTACK_MODEL_VRAM_CLAIM": "3 GiB"}}
        )
        assert status == 422
        assert "GPUSTACK_MODEL_VRAM_CLAIM" in answer["message"] and "bytes" in answer["message"]
