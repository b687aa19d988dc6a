#!/usr/bin/env bash
# The same loads against this server and the reference brain, one after the other in one run, side by side in one table.
#
#   scripts/bench-peer.sh [SECONDS]   seconds of each ingest run (30)
#   REPORT=DIR                        where the reports and summary.{json,md} go (target/bench-peer)
#
# The loads are small enough for the slower of the two to finish: few frames un-acked, few requests.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/bench-server.sh

seconds=${1:-30}
out=${REPORT:-target/bench-peer}
scripts/peer.sh install

loads() {
    run ingest swarm --agents 8 --window 16 --duration "$seconds" --checks 0
    run commands-1 commands --agents 2 --concurrency 1 --count 50
    run commands-4 commands --agents 4 --concurrency 4 --count 100
    run rest rest --requests 100 --tree 100
}

report_in "$out/reference"
data=$dir/peer
server=$(scripts/peer.sh start "$data" "${listen#*:}")
loads
kill "$server" && while kill -0 "$server" 2>/dev/null; do sleep 0.1; done
server=

report_in "$out/thalamus"
data=$dir/data
start_server
loads
stop_server
"$load" report "$out/thalamus" --beside "$out/reference" --titles thalamus reference --of "$(version); z4j 1.13.0, SQLite"
cp "$out/thalamus/summary.json" "$out/thalamus/summary.md" "$out/"
