#!/bin/sh
# Makes the virtual environment at $1 with the first Python of at least 3.11, or says in a sentence what is missing.
set -eu

target=$1
recent='import sys; raise SystemExit(sys.version_info < (3, 11))'

if [ -x "$target/bin/python" ] && "$target/bin/python" -c "$recent" 2>/dev/null && [ -x "$target/bin/pip" ]; then
    exit 0
fi

python=
for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c "$recent" 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "GPUStack needs Python 3.11 or newer and finds none; install one and name it: make PYTHON=/path/to/python3" >&2
    exit 1
fi

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "Installing $package, which $python needs to make virtual environments"
        apt-get update -q
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$package"
    else
        echo "$python cannot make virtual environments; as root: apt-get install $package (then run this again)" >&2
        exit 1
    fi
fi

echo "Making a virtual environment in $target with $("$python" --version)"
"$python" -m venv --clear "$target"
