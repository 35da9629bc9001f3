"""A report of a machine whose server is down."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from gpustack.cli.debug_bundle import LOG_TAIL
from gpustack.cli.main import main
from gpustack.config.datadir import SECRET_FILES


@pytest.mark.attack("secret")
def test_a_bundle_has_what_the_machine_tells_when_no_server_answers(
    tmp_path: Path, free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    (data / "log" / "serve").mkdir(parents=True)
    data.chmod(0o700)
    for name in SECRET_FILES:
        (data / name).write_text(f"Hunter2-{name}\n")
    (data / "log" / "serve" / "1.log").write_text(
        f"started with {' '.join(f'Hunter2-{n}' for n in SECRET_FILES)}\n"
    )
    # The end that is taken begins within a secret, of which only half is left.
    lines = ((b"z" * 1022 + b"\n") * (LOG_TAIL // 1023 + 1))[-LOG_TAIL + len(b"4567\n") :]
    (data / "log" / "serve" / "2.log").write_bytes(b"Hunter2-half4567\n" + lines)
    env = {"GPUSTACK_DATA_DIR": str(data), "HOME": str(tmp_path), "GPUSTACK_METRICS_PORT": "0"}
    env |= {"GPUSTACK_SERVER_URL": f"http://127.0.0.1:{free_port}", "GPUSTACK_WORKER_METRICS_PORT": "0"}
    target = tmp_path / "b.tar.gz"
    assert main(["debug", "bundle", str(target), "-o", "json"], env) == 0
    told = json.loads(capsys.readouterr().out)
    assert target.stat().st_mode & 0o777 == 0o600 and told["size"] == target.stat().st_size
    assert "server" in told["missing"]
    with tarfile.open(target) as tar:
        texts = {
            one.name.partition("/")[2]: file.read().decode()
            for one in tar.getmembers()
            if (file := tar.extractfile(one)) is not None
        }
    assert {one["name"] for one in told["files"]} == {*texts}
    assert texts["logs/engines/1.log"] == f"started with {' '.join('***' for _ in SECRET_FILES)}\n"
    assert set(texts["logs/engines/2.log"]) == {"z", "\n"}
    assert "cannot be reached" in texts["missing.txt"] and "data_dir" in texts["options.txt"]
    assert all(name in texts["README.txt"] for name in texts if name != "README.txt")
    assert not any("Hunter2" in text for text in texts.values())
    assert main(["debug", "bundle", str(target)], env) == 1
    assert "is there already" in capsys.readouterr().err
