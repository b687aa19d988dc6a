#!/usr/bin/env bash
# Starts a fresh release server in a temporary folder and runs every load against it: events for SECONDS (default 60),
# then reads of what was stored, then commands. REPORT=DIR keeps the figures as JSON and Markdown.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
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

export THALAMUS_ADMIN_PASSWORD=$password
run() {
    "$target/load" "$@" --url "http://127.0.0.1:$port" --project bench --server-pid "$server" \
        ${REPORT:+--report "$REPORT"}
}
run swarm --agents 8 --duration "$seconds"
run rest --requests 2000 --concurrency 1
run commands --agents 4 --concurrency 1 --count 2000
run commands --agents 64 --concurrency 32 --count 20000 --poll-ms 5
