#!/usr/bin/env bash
# One server on one Cassandra node, and the driver alone writing the same rows on that node right after.
#
#   scripts/bench-cassandra.sh [SECONDS] [DIR]    seconds of each run (30); the report goes to DIR (target/bench) as `ceiling`
#
# The node syncs its commit log before it answers, so that acked means on disk on both sides.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/bench-server.sh

seconds=${1:-30}
report=${2:-target/bench}
mkdir -p "$report"
secret=bench-$RANDOM-$RANDOM-0123456789abcdef-0123456789

stop_all() {
    stop_server
    scripts/cassandra.sh stop "$dir/cassandra" || true
    rm -rf "$dir"
}
trap stop_all EXIT
say "starting a Cassandra node"
node=$(CASSANDRA_HEAP=${CASSANDRA_HEAP:-1g} scripts/cassandra.sh start "$dir/cassandra" --durable | tail -n 1)

start_server --store cql --cql-nodes "$node" --cql-keyspace bench --master-secret "$secret"
# A JVM that has just started is not what a node is; the driver alone runs after all of this.
say "ceiling: warming up"
"$load" swarm --agents 16 --duration "$((seconds * 3 / 2))" --checks 1 --url "http://$listen" --project warm >/dev/null
say "ceiling: load swarm on $node"
"$load" swarm --agents 16 --duration "$seconds" --checks 20 --url "http://$listen" --project bench --server-pid "$server" \
    --report "$report" --as cassandra-ingest >/dev/null
stop_server
say "ceiling: the driver alone"
raw=$("$target/examples/ceiling" "$node" bench "$seconds")

python3 - "$report" "$raw" <<'PYTHON'
import json, sys

folder, raw = sys.argv[1], json.loads(sys.argv[2])
with open(f"{folder}/cassandra-ingest.json") as file:
    ours = json.load(file)
rate = dict(ours["figures"])["acked events per second"]
report = {
    **ours, "scenario": "ceiling", "name": "ceiling", "command": "scripts/bench-cassandra.sh", "series": [], "latencies": [],
    "figures": [
        ["acked events per second", rate],
        ["raw driver, events per second", raw["events_per_second"]],
        ["bytes of a task's row", raw["bytes_per_row"]],
        ["share of the ceiling, %", round(100 * rate / raw["events_per_second"], 1)],
    ],
}  # fmt: skip
with open(f"{folder}/ceiling.json", "w") as file:
    json.dump(report, file, indent=2)
print(json.dumps(report["figures"]))
PYTHON
