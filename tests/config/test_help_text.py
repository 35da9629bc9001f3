from __future__ import annotations

import subprocess
import sys

import pytest

from gpustack.config.help_text import usage
from gpustack.config.option import table
from gpustack.config.options import Options


@pytest.mark.parametrize("command", ["start", "config"])
def test_the_help_has_every_flag_with_its_default(command: str) -> None:
    lines = usage(command).splitlines()
    heads = {line.strip().split(", ")[-1].split("=")[0] for line in lines if line.startswith("  -")}
    flags = {option.flag for option in table(Options) if option.flag}
    own = {"--help", "--format"} if command == "config" else {"--help"}
    assert heads == flags | own
    text = " ".join(usage(command).split())
    for option in table(Options):
        if option.flag:
            assert f"(default: {option.shown or option.show(option.default) or 'none'})" in text


def test_docopt_reads_no_line_of_help_text_as_an_option() -> None:
    for line in usage().splitlines():
        assert not line.startswith("   ") or not line.strip().startswith("-")
        assert len(line) <= 100


def test_showing_help_loads_neither_yaml_nor_cattrs_nor_anything_heavy() -> None:
    program = (
        "import sys\n"
        "from gpustack.config.loader import load\n"
        "from pathlib import Path\n"
        "try: load(['--help'], {}, platform='linux', cwd=Path('/'))\n"
        "except SystemExit: pass\n"
        "heavy = {'yaml', 'cattrs', 'sqlite3', 'trio', 'httpx', 'asyncio', 'orjson'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--worker-port" in done.stdout
