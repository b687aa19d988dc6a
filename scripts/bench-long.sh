#!/usr/bin/env bash
# What changes as tasks grow: cost per event, pages and disk at 100 k, 1 M and 10 M tasks, then minutes of ingest on top.
#
#   scripts/bench-long.sh [SECONDS]   seconds of the last ingest run (600)
#   REPORT=DIR                        where the reports, pictures and summary.{json,md} go (target/bench-long)
#   SIZES="N N N"                     numbers of tasks, rising (100000 1000000 10000000)
#
# Needs about 25 GB below TMPDIR.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/bench-server.sh

seconds=${1:-600}
report_in "${REPORT:-target/bench-long}"

start_server
stored=0
for size in ${SIZES:-100000 1000000 10000000}; do
    # The measured run adds the last of them. Of 32 tasks one has six events, the others have three.
    missing=$(part_of $((size - stored)) 3.1)
    measured=$((missing / 2 < 1500000 ? missing / 2 : 1500000))
    run "fill-$size" swarm --agents 8 --events-per-frame 200 --events $((missing - measured)) --checks 20
    run "growth-$size-ingest" swarm --agents 8 --events "$measured" --checks 20
    run "growth-$size-rest" rest --requests 500
    stored=$(part_of "$(figure "growth-$size-rest" 'tasks in the project')" 1)
done
run long-ingest swarm --agents 8 --duration "$seconds"
run long-rest rest --requests 500
"$load" report "$report" --of "$(version)"
