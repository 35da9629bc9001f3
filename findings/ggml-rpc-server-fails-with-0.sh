#!/usr/bin/env bash
# llama.cpp's RPC server ends with exit code 0 when it cannot listen.
#
# Surprise:  where its port is taken, or its host is given as a name (`localhost`) or in IPv6, ggml-rpc-server ends at once with
#            code 0, as after work well done; for `::1` without a word of what is wrong. A port beyond 65535 ends it with 1.
# Bites:     supervisors that start again what has failed (`Restart=on-failure` of systemd, the same of containers, jobs of batch
#            systems): it counts as done, and the llama-server that needs it finds nobody.
# Versions:  llama-cpp-python 0.3.36, whose source has the llama.cpp that is built here (RPC protocol 7.0.0).
# Needs:     a compiler for C++, and a minute or two for it.
# We:        take every end of a follower for a failure, whatever its code, and start the instance at once with other ports
#            where one was taken: gpustack/engines/rpc_server.py, gpustack/worker/engine_exit.py.
source "$(dirname "$0")/fresh.sh"
fresh cmake==4.4.5 ninja==1.13.2
venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: llama-cpp-python==0.3.36
tar -xzf llama_cpp_python-0.3.36.tar.gz
{
  PATH=$PWD/venv/bin:$PATH cmake -S llama_cpp_python-0.3.36/vendor/llama.cpp -B build -G Ninja -DGGML_RPC=ON -DBUILD_SHARED_LIBS=OFF \
    -DCMAKE_BUILD_TYPE=None -DCMAKE_C_FLAGS=-O0 -DCMAKE_CXX_FLAGS=-O0 -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DGGML_LLAMAFILE=OFF \
    -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF
  PATH=$PWD/venv/bin:$PATH ninja -C build ggml-rpc-server
} > build.log 2>&1 || { tail -n 20 build.log >&2; exit 1; }
try <<'PYTHON'
import socket
import subprocess

import report

report.versions("cmake", "ninja")
print("llama-cpp-python 0.3.36")
taken = socket.create_server(("127.0.0.1", 0))
free = socket.create_server(("127.0.0.1", 0))
FREE = free.getsockname()[1]
free.close()


def ends(*arguments):
    """The exit code, and what it says of the reason; it is ended where it listens after all."""
    command = ["build/bin/ggml-rpc-server", *arguments]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return "it listens"
    lines = (ended.stdout + ended.stderr).splitlines()
    return ended.returncode, next((line for line in lines if line.startswith(("Failed", "Invalid parameters"))), "")


for what, arguments, recorded in (
    ("a port that is taken", ("-p", str(taken.getsockname()[1])), (0, "Failed to create server socket")),
    ("the host localhost", ("-H", "localhost", "-p", str(FREE)), (0, "Failed to create server socket")),
    ("the host ::1", ("-H", "::1", "-p", str(FREE)), (0, "")),
    ("the port 70000", ("-p", "70000"), (1, "Invalid parameters")),
):
    report.observe(f"{what}: exit code and reason", expected="not 0, and a reason", recorded=recorded, seen=ends(*arguments))
report.conclude()
PYTHON
