#!/usr/bin/env bash
# The reference brain as a black box, from PyPI, in a virtual environment of its own.
#
#   scripts/peer.sh install             .deps/peer, once
#   scripts/peer.sh start DIR PORT      on SQLite in DIR; prints the process id once it is healthy
#
# THALAMUS_ADMIN_EMAIL and THALAMUS_ADMIN_PASSWORD name its administrator. End it with kill.
set -euo pipefail
cd "$(dirname "$0")/.."

version=1.13.0
venv=$PWD/.deps/peer

install() {
    mkdir -p .deps
    if [ "$(cat "$venv/.version" 2>/dev/null)" != "$version" ]; then
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check "z4j==$version"
        echo "$version" >"$venv/.version"
    fi
}

start() { # DIR PORT
    local dir=$1 port=$2 pid
    install
    mkdir -p "$dir"
    # Its own home, so that it finds no settings but these.
    env -i PATH="$PATH" HOME="$dir" "$venv/bin/z4j" serve --host 127.0.0.1 --port "$port" --environment dev \
        --admin-email "$THALAMUS_ADMIN_EMAIL" --admin-password "$THALAMUS_ADMIN_PASSWORD" \
        >"$dir/server.log" 2>&1 </dev/null &
    pid=$!
    for _ in $(seq 600); do
        if curl -sf -m 1 "http://127.0.0.1:$port/api/v1/health" >/dev/null; then
            echo "$pid"
            return
        fi
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 20 "$dir/server.log" >&2
    kill "$pid" 2>/dev/null || true
    echo "peer: it does not start" >&2
    exit 1
}

case ${1:-} in
install) install ;;
start) start "${2:?DIR}" "${3:?PORT}" ;;
*) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
