from __future__ import annotations

from pathlib import Path

import pytest

from gpustack.cli.main import main
from gpustack.config.rendering import env_file, markdown, yaml_file

ROOT = Path(__file__).parents[2]


def test_it_prints_values_with_origins_and_warns_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--port", "81", "--ray-port=1"], {"GPUSTACK_TOKEN": "hunter2"}) == 0
    out, err = capsys.readouterr()
    assert "flag --port" in out
    assert "GPUSTACK_TOKEN" in out
    assert "hunter2" not in out + err
    assert "With fewer characters than a new one may have" in err


@pytest.mark.parametrize(
    ("form", "text"), [("yaml", yaml_file()), ("env", env_file()), ("markdown", markdown())]
)
def test_it_writes_each_sample(form: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", f"--format={form}"], {}) == 0
    assert capsys.readouterr().out == text


def test_a_wrong_configuration_is_told_on_stderr_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--port=x", "--prot"], {}) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "2 things are wrong with the configuration:",
        "  flag --prot: is not known; did you mean --port?",
        "  flag --port: port must be a whole number, not 'x'",
    ]
    assert main(["config", "--format=toml"], {}) == 2
    assert "must be one of table, yaml, env, markdown, not 'toml'" in capsys.readouterr().err


def test_its_help_has_its_own_flag_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["config", "--help"], {})
    assert not ended.value.code
    assert "--format=FORMAT" in capsys.readouterr().out
