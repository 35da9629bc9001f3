#!/usr/bin/env bash
# Importing ONNX Runtime writes an identity of the device and a database of events, and says nothing.
#
# Surprise:  `import onnxruntime` alone, without a model, leaves under ~/.cache/Microsoft/DeveloperTools/.onnxruntime a file
#            `deviceid` (a UUID, which later processes keep) and `onnxruntime.db` (SQLite, 24 KiB, with a row in its table
#            `events`), and `.ses` in the folder for temporary files. A program that calls disable_telemetry_events() at once
#            gets all three; ORT_DISABLE_TELEMETRY=1 or CI=true in its environment prevents them. The package holds a
#            Privacy.md that tells of telemetry and of the first variable; the description that PyPI shows names neither,
#            and the import prints nothing.
# Bites:     whoever upgrades a program for speech, embeddings or OCR that has ONNX Runtime among what it needs: its home gets
#            an identity, and a copy of that home, as in an image that was built with it, has the same.
# Versions:  onnxruntime 1.32.0. 1.28.0 writes nothing; 1.29.0, the next one, was seen to write them too.
# We:        set ORT_DISABLE_TELEMETRY=1 for the engines that load it: gpustack/engines/launcher.py.
# Needs:     the right to make a network namespace (unshare, of util-linux): what is tried here has no network.
source "$(dirname "$0")/fresh.sh"
unshare --map-root-user --net true || { echo "This needs the right to make a network namespace." >&2; exit 1; }
fresh onnxruntime==1.32.0
venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target older onnxruntime==1.28.0
try <<'PYTHON'
import os
import shutil
import sqlite3
import subprocess
import tempfile
from importlib.metadata import metadata
from pathlib import Path
from uuid import UUID

import report

report.versions("onnxruntime")
PYTHON = os.path.abspath("venv/bin/python")
HERE = ".cache/Microsoft/DeveloperTools/.onnxruntime"
IDENTITY, EVENTS, SESSION = f"home/{HERE}/deviceid", f"home/{HERE}/onnxruntime.db", "tmp/.ses"


def place():
    """A folder with an empty home, an empty folder for temporary files, and an empty one to work in."""
    made = Path(tempfile.mkdtemp(dir="."))
    for name in ("home", "tmp", "work"):
        (made / name).mkdir()
    return made.resolve()


def run(there, code="import onnxruntime", **env):
    """Run this with nothing in the environment but what is named, and no network; what it printed."""
    env = {"PATH": os.environ["PATH"], "HOME": str(there / "home"), "TMPDIR": str(there / "tmp"), **env}
    command = ("unshare", "--map-root-user", "--net", PYTHON, "-c", code)
    ended = subprocess.run(command, env=env, cwd=there / "work", check=True, timeout=60, capture_output=True, text=True)
    return ended.stdout + ended.stderr


def written(there):
    return sorted(str(path.relative_to(there)) for path in there.rglob("*") if path.is_file())


def left(code="import onnxruntime", **env):
    """The files that are there after this alone."""
    there = place()
    run(there, code, **env)
    return written(there)


first = place()
said = run(first)
ALL = [IDENTITY, EVENTS, SESSION]
report.observe("what `import onnxruntime` writes", expected=[], recorded=ALL, seen=written(first))
report.observe("what it says of that", expected="something", recorded="", seen=said)
described = metadata("onnxruntime").as_string().lower()
report.observe("does its description name telemetry", expected=True, recorded=False, seen="telemetry" in described)

if written(first) == ALL:
    sizes = {name: (first / name).stat().st_size for name in ALL}
    print(f"\nbytes: {sizes}")
    identity = UUID((first / IDENTITY).read_text().strip())
    with sqlite3.connect(first / EVENTS) as database:
        rows = database.execute("SELECT count(*) FROM events").fetchone()[0]
    report.observe("rows in its table `events`", expected=0, recorded=1, seen=rows)
    shutil.copytree(first / "home", (copy := place()) / "home", dirs_exist_ok=True)
    run(copy)
    other = UUID((copy / IDENTITY).read_text().strip()) != identity
    report.observe("is the identity another one in a copy of that home", expected=True, recorded=False, seen=other)

late = left("import onnxruntime; onnxruntime.disable_telemetry_events()")
report.observe("written when the program turns telemetry off at once", expected=[], recorded=ALL, seen=late)
for name, value in {"ORT_DISABLE_TELEMETRY": "1", "CI": "true"}.items():
    report.observe(f"written with {name}={value}", expected=[], recorded=[], seen=left(**{name: value}))
OLDER = "import onnxruntime; assert onnxruntime.__version__ == '1.28.0'"
report.observe("written by 1.28.0", expected=[], recorded=[], seen=left(OLDER, PYTHONPATH=os.path.abspath("older")))
report.conclude()
PYTHON
