#!/usr/bin/env bash
# Every load but those on 10 M tasks, each against a release server: ingest, commands, reads, exports on a million tasks,
# starts, idle sessions, fairness, and Cassandra where its jars are installed (scripts/setup-tests.sh).
#
#   scripts/bench.sh [SECONDS]   seconds of the main ingest run (60); below 20 it is a check that everything works
#   REPORT=DIR                   where the reports and summary.{json,md} go (target/bench)
#   TASKS=N                      tasks before reads, exports and the timed start (1000000)
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/bench-server.sh

seconds=${1:-60}
tasks=${TASKS:-1000000}
brief=$((seconds < 20 ? seconds : 20))
requests=$((seconds < 20 ? 200 : 1000))
report_in "${REPORT:-target/bench}"

say "a fresh server at rest"
# shellcheck disable=SC2046
"$load" start --listen "$listen" --runs 1 --report "$report" --as start-fresh -- $(serve_words) >/dev/null
rm -rf "$data"

start_server
run ingest swarm --agents 8 --duration "$seconds"
half=$(part_of "$(figure ingest 'acked events per second')" 0.5)
run ingest-half swarm --agents 8 --duration "$brief" --rate "$half"
run ingest-batched swarm --agents 8 --duration "$brief" --events-per-frame 200
run commands-1 commands --agents 4 --concurrency 1 --count "$requests" --wait-in-post
run commands-32 commands --agents 64 --concurrency 32 --count $((requests * 20)) --wait-in-post
run commands-32-waited commands --agents 64 --concurrency 32 --count $((requests * 20)) --wait
run commands-32-polled commands --agents 64 --concurrency 32 --count $((requests * 20)) --poll-ms 5
run commands-beside commands --agents 4 --concurrency 1 --count "$requests" --wait-in-post --with-rate "$half"
stored=$(part_of "$(figure ingest-batched 'tasks in the project')" 1)
if [ "$stored" -lt "$tasks" ]; then
    # Of 32 tasks one has six events, the others have three.
    run fill swarm --agents 8 --events-per-frame 200 --events $(part_of $((tasks - stored)) 3.1)
fi
run rest rest --requests "$requests"
run rest-32 rest --requests "$requests" --concurrency 32
for format in csv ndjson xlsx; do
    run "export-$format" export --format "$format"
done
stop_server
say "starts with $tasks tasks"
# shellcheck disable=SC2046
"$load" start --listen "$listen" --runs 5 --report "$report" --as start-tasks -- $(serve_words) >/dev/null
rm -rf "$data"

start_server
run idle idle --agents 5000 --duration "$seconds"
stop_server
rm -rf "$data"

start_server
run fairness fairness --duration "$brief"
stop_server

if [ -d .deps/cassandra/lib ] && [ -x "$target/examples/ceiling" ]; then
    rm -rf "$data"
    scripts/bench-cassandra.sh "$brief" "$report"
else
    say "no Cassandra installed: that row is left out"
fi
"$load" report "$report" --of "$(version)"
