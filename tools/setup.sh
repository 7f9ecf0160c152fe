#!/bin/sh
# Makes .venv in this folder with codeczoo and the extras that are named, on a bare Debian or Ubuntu or anything else
# with Python >= 3.11. Usage: sh tools/setup.sh [EXTRA,EXTRA...]      PYTHON=... chooses the interpreter.
set -eu
cd "$(dirname "$0")/.."

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

python=${PYTHON:-}
for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    [ -n "$python" ] && break
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$candidate; fi
done
if [ -z "$python" ] || ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if command -v apt-get >/dev/null; then # Debian keeps venv in a package of its own
        as_root apt-get update -q
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy python3-venv
        python=${python:-python3}
    fi
fi
if ! "$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "setup: wants Python 3.11 or newer with venv; install it, or name it: PYTHON=/path/to/python3.11 sh tools/setup.sh" >&2
    exit 2
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv
echo "setup: installing codeczoo${1:+[$1]} into .venv (torch alone is some GB; minutes the first time)"
.venv/bin/python -m pip install -q --disable-pip-version-check -e ".${1:+[$1]}"
