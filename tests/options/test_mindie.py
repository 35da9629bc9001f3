"""MindIE's variables, seen at a stand-in for its service that a real daemon starts as it would start MindIE."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon, daemon
from tests.models.hollow_folder import make_hollow_folder
from tests.options.spelling import spelled

GIB = 1 << 30
SERVICE = """#!{python}
import json, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

config = json.load(open(os.environ["MIES_CONFIG_JSON_PATH"]))
model = config["BackendConfig"]["ModelDeployConfig"]["ModelConfig"][0]
weights = json.load(open(model["modelWeightPath"] + "/config.json"))
told = {{"environment": dict(os.environ), "config": config, "weights": weights, "cwd": os.getcwd()}}
json.dump(told, open("{told}", "w"))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        text = b"num_requests_waiting 3\\n" if self.path == "/metrics" else b'{{"data": []}}'
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *said):
        pass


server = config["ServerConfig"]
ThreadingHTTPServer((server["ipAddress"], server["port"]), Handler).serve_forever()
"""


def installed(folder: Path) -> Path:
    """The folder of the service; each of the scripts around it says that it was read."""
    home = folder / "Ascend/mindie/latest/mindie-service"
    program = home / "bin/mindieservice_daemon"
    program.parent.mkdir(parents=True)
    program.write_text(SERVICE.format(python=sys.executable, told=folder / "told.json"))
    program.chmod(0o755)
    (home.parent / "version.info").write_text("Ascend-mindie : MindIE 2.1.RC1\n")
    for place in (
        "ascend-toolkit",
        "ascend-toolkit/8.2.RC1",
        "nnal/atb",
        "atb-models",
        "mindie/latest/mindie-service",
    ):
        script = folder / "Ascend" / place / "set_env.sh"
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(f'export READ="$READ {place}"\n')
    return program.parent


@contextmanager
def machine(folder: Path, **variables: str) -> Iterator[Daemon]:
    npu = {"name": "910B3", "vendor": "Huawei", "index": 0, "memory": {"total": 64 * GIB}}
    npu["network"] = {"inet": "192.168.1.10", "netmask": "255.255.255.0"}
    arguments, env = spelled("environment", folder, {"resources": {"gpu_devices": [npu]}})
    make_hollow_folder(folder / "model", "qwen3-0.6b")
    env |= {"PATH": f"{installed(folder)}:/usr/bin:/bin", **variables}
    with daemon(folder / "data", *arguments, env=env) as one:
        yield one


def deploy(one: Daemon, folder: Path, name: str = "m", **more: Any) -> dict[str, Any]:
    model = {
        "name": name,
        "source": "local_path",
        "local_path": str(folder / "model"),
        "backend": "MindIE",
        **more,
    }
    status, answer = one.call("POST", "/v1/models", model)
    assert (status, answer["backend"]) == (200, "ascend-mindie"), answer
    (instance,) = one.running(name)
    return instance


def told(folder: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((folder / "told.json").read_text())
    return found


def test_mindie_is_started_with_its_files_and_keeps_what_it_is_told_to(tmp_path: Path) -> None:
    """RESERVED_MEMORY_GB reaches it, and is part of what it must find free; the claim is the share that it takes."""
    with machine(tmp_path) as one:
        instance = deploy(one, tmp_path, env={"RESERVED_MEMORY_GB": "5"})
        assert instance["gpu_addresses"] == ["192.168.1.10"]
        assert instance["computed_resource_claim"]["vram"] == {"0": -(-9 * 64 * GIB // 10)}
        seen = told(tmp_path)
        assert seen["environment"]["RESERVED_MEMORY_GB"] == "5"
        assert seen["environment"]["ASCEND_RT_VISIBLE_DEVICES"] == "0"
        places = "ascend-toolkit nnal/atb atb-models mindie/latest/mindie-service"
        assert seen["environment"]["READ"] == f" {places}"
        session = Path(seen["cwd"])
        assert session.parent == tmp_path / "data/run" and "torch_dtype" in seen["weights"]
        assert seen["weights"]["torch_dtype"] == "bfloat16", "chips of this line have it"
        assert (session / "weights/config.json").is_file() and not (
            session / "weights/config.json"
        ).is_symlink()
        one.call("DELETE", f"/v1/models/{instance['model_id']}")
        one.until(lambda: not session.exists(), "its files are removed with it")
        one.until(lambda: not one.instances(), "its claim is given back")

        status, answer = one.call(
            "POST",
            "/v1/model-evaluations",
            {
                "model_specs": [
                    {
                        "source": "local_path",
                        "local_path": str(tmp_path / "model"),
                        "backend": "mindie",
                        "env": {"RESERVED_MEMORY_GB": str(reserved)},
                    }
                    for reserved in (5, 62, "much")
                ]
            },
        )
        assert status == 200
        good, full, wrong = answer["results"]
        assert (good["compatible"], full["compatible"]) == (True, False), (good, full)
        assert "RESERVED_MEMORY_GB must be a number of GiB" in str(wrong["compatibility_messages"])


@pytest.mark.parametrize("variable", ["CANN_VERSION", "CANN_CHIP"])
def test_cann_version_and_cann_chip_stand_in_for_what_would_be_found(tmp_path: Path, variable: str) -> None:
    """The toolkit of that version is read after the usual one; chips of the 310P line are given no bfloat16."""
    with machine(tmp_path, **{variable: {"CANN_VERSION": "8.2.RC1", "CANN_CHIP": "310P"}[variable]}) as one:
        deploy(one, tmp_path)
    seen = told(tmp_path)
    is_version = variable == "CANN_VERSION"
    assert ("ascend-toolkit/8.2.RC1" in seen["environment"]["READ"].split()) is is_version
    assert seen["weights"]["torch_dtype"] == ("bfloat16" if is_version else "float16")
