from __future__ import annotations

from pathlib import Path

import pytest

from gpustack.config.file import LIMIT
from tests.config.loading import faults, loaded


def wrong(folder: Path, content: str | bytes) -> list[str]:
    (folder / "c.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    return faults("--config-file=c.yaml", cwd=folder)


def test_a_plain_value_counts_as_the_text_it_is_written_as(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "token: 0123\nworker_name: 12e3\ndebug: yes\nworker_ip: '10.0.0.1'\nray_args: [--port=1, 2]\n"
    )
    options = loaded("--config-file=c.yaml", cwd=tmp_path).options
    assert (options.token, options.worker_name, options.debug) == ("0123", "12e3", True)
    assert options.ray_args == ("--port=1", "2")


def test_each_value_knows_its_line(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("# comment\n\nport: 81\nsystem_reserved:\n  ram: 0\n  vram: 0\n")
    found = loaded("--config-file=c.yaml", cwd=tmp_path)
    assert str(found.origins["port"]) == "c.yaml line 3"
    assert str(found.origins["system_reserved"]) == "c.yaml line 4"
    assert found.options.system_reserved.ram_bytes == 0


@pytest.mark.parametrize("content", ["", "# nothing\n", "---\n", "null\n", "{}"])
def test_an_empty_file_says_nothing(content: str, tmp_path: Path) -> None:
    assert wrong(tmp_path, content) == []


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("- port", "c.yaml: must hold a mapping of option names to values"),
        ("prt: 1", "c.yaml line 1: prt is not known; did you mean port?"),
        ("data-dir: /x", "c.yaml line 1: data-dir is not known; did you mean data_dir?"),
        ("config_file: x", "c.yaml line 1: config_file cannot be set in the configuration file itself"),
        ("port: 1\nport: 2", "c.yaml line 2: port is written a second time"),
        ("port: [1", "c.yaml line 1: is not valid YAML"),
        ("a: b: c", "c.yaml line 1: is not valid YAML"),
        ("port: {a: 1}", "c.yaml line 1: port must be a whole number"),
        ("token: [a]", "c.yaml line 1: token must be text"),
        ("port: 1\n---\nport: 2", "c.yaml line 2: is not valid YAML"),
        ("resources: {cpu: !!python/object:os.system {}}", "c.yaml line 1: is not valid YAML"),
        ("port: \x01", "c.yaml: is not valid YAML"),
        ("resources: " + "[" * 5000, "c.yaml: is not valid YAML"),
        (b"\xff\xfe\xff", "c.yaml: the configuration file is not UTF-8 text"),
        (b"#" * (LIMIT + 1), f"c.yaml: the configuration file is larger than {LIMIT} bytes"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_line(
    content: str | bytes, fault: str, tmp_path: Path
) -> None:
    told = wrong(tmp_path, content)
    assert len(told) == 1
    assert told[0].startswith(fault)


def test_a_fault_late_in_the_file_does_not_hide_those_before_it(tmp_path: Path) -> None:
    assert wrong(tmp_path, "prt: 1\nport: x\nresources: {cpu: !!nothing {}}\n") == [
        "c.yaml line 1: prt is not known; did you mean port?",
        "c.yaml line 3: is not valid YAML: could not determine a constructor for the tag "
        "'tag:yaml.org,2002:nothing'",
        "c.yaml line 2: port must be a whole number, not 'x'",
    ]
