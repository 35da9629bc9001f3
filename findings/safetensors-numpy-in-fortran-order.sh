#!/usr/bin/env bash
# safetensors writes a NumPy array in Fortran's order with its numbers in other places, and says nothing.
#
# Surprise:  the transpose of an array lies in memory column by column, and so does much of what scipy.linalg returns. It is
#            contiguous and dense, which is all that safetensors.numpy asks for. 0.8.0 writes the memory as it lies, under
#            the shape of the array: the file is valid, and holds another matrix. 0.7.0 wrote it right; safetensors.torch
#            refuses a transpose with a ValueError.
# Bites:     converters that write `weight.T`, merged adapters, projections from a decomposition: the model loads, and
#            answers nonsense.
# Versions:  safetensors 0.8.0 (reported to its makers as issue 825) and 0.7.0, numpy 2.4.6.
# We:        write no weights; those of the tests are written without the library: tests/models/tiny_folder.py.
source "$(dirname "$0")/fresh.sh"
fresh safetensors==0.8.0 numpy==2.4.6
venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target older safetensors==0.7.0
try <<'PYTHON'
import json
import subprocess
import sys

import report

report.versions("safetensors", "numpy")
READ_BACK = """
import json, numpy, safetensors.numpy as library
rows = numpy.arange(6, dtype="float32").reshape(2, 3)
arrays = {
    "by rows": rows,
    "its transpose": rows.T,
    "the same by columns": numpy.asfortranarray(rows),
}
print(json.dumps({name: (array.tolist(), library.load(library.save({"x": array}))["x"].tolist()) for name, array in arrays.items()}))
"""


def read_back(*first):
    """For each array what was saved, and what the file then holds; with this folder before the packages."""
    code = f"import sys; sys.path[:0] = {list(first)!r}\n{READ_BACK}"
    return json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60).stdout)


recorded = {
    "by rows": [[0, 1, 2], [3, 4, 5]],
    "its transpose": [[0, 1], [2, 3], [4, 5]],
    "the same by columns": [[0, 3, 1], [4, 2, 5]],
}
for name, (saved, seen) in read_back().items():
    report.observe(f"{name}, saved and loaded by 0.8.0", expected=saved, recorded=recorded[name], seen=seen)
for name, (saved, seen) in read_back("older").items():
    report.observe(f"{name}, by 0.7.0", expected=saved, recorded=saved, seen=seen)
report.conclude()
PYTHON
