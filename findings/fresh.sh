# Sourced by each finding: `fresh NAME==VERSION …` makes a virtual environment with these packages in a folder that is
# removed at exit, and goes there; `try` runs the Python program on its standard input, for five minutes at most.
set -euo pipefail

fresh() {
  local here
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  place=$(mktemp -d)
  trap 'cd / && rm -rf "$place"' EXIT
  trap 'exit 143' INT TERM
  cp "$here"/*.py "$place"
  cd "$place"
  unset PYTHONPATH PYTHONHOME
  python3 -m venv venv
  [ $# = 0 ] || venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"
  # What follows stays on this machine.
  unset HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy
}

try() {
  cat > finding.py
  timeout --kill-after=10 300 venv/bin/python finding.py 2> errors.log || {
    local code=$?
    tail -n 20 errors.log >&2
    return "$code"
  }
}
