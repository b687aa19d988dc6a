#!/usr/bin/env bash
# Installs what the tests need beyond a Rust toolchain, Python, Java 17 and Maven:
#   redis-server       by apt, when missing
#   .deps/venv         Celery, the agents and pytest, pinned by tests/requirements.txt
#   Cassandra jars     by scripts/cassandra.sh, below .deps
# Quick when everything is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "setup: $*"; }

apt_install() {
    if [ "$(id -u)" -ne 0 ]; then
        say "missing: $*; install it (apt-get install $*) and run this again" >&2
        exit 1
    fi
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

command -v redis-server >/dev/null || apt_install redis-server
python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv

venv=.deps/venv
stamp=$venv/.requirements
wanted=$(sha256sum tests/requirements.txt | cut -d' ' -f1)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    say "Python packages into $venv"
    # In place, so that tests that are running keep theirs; only one that does not work is made anew.
    "$venv/bin/python" -c pass 2>/dev/null || { rm -rf "$venv"; python3 -m venv "$venv"; }
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r tests/requirements.txt
    echo "$wanted" >"$stamp"
fi

if [ -x scripts/cassandra.sh ]; then
    scripts/cassandra.sh install
else
    say "scripts/cassandra.sh is not there: no Cassandra"
fi
