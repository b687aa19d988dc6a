#!/usr/bin/env bash
# Starts a fresh release server in a temporary folder and runs the load generator against it for SECONDS (default 60).
# Further words go to the load generator as they are.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
target=${CARGO_TARGET_DIR:-target}/release
dir=$(mktemp -d "${TMPDIR:-/tmp}/thalamus-bench.XXXXXX")
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
password=Bench-$RANDOM-$RANDOM-Run

"$target/thalamus" serve --listen "127.0.0.1:$port" --data-dir "$dir/data" \
    --admin-email admin@example.com --admin-password "$password" >"$dir/server.log" 2>&1 &
server=$!
finish() {
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    rm -rf "$dir"
}
trap finish EXIT

for _ in $(seq 100); do
    if python3 -c "import urllib.request as r; r.urlopen('http://127.0.0.1:$port/health', timeout=1)" 2>/dev/null; then
        break
    fi
    kill -0 "$server" || { cat "$dir/server.log" >&2; exit 1; }
    sleep 0.1
done

"$target/load" --url "http://127.0.0.1:$port" --email admin@example.com --password "$password" \
    --server-pid "$server" --seconds "$seconds" "$@"
