#!/usr/bin/env bash
# Runs a command with THALAMUS_TEST_CQL=host:port set to a Cassandra node that is started for it and stopped after it.
# A node given by the caller in that variable is used as it is, and left running.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

if [ -n "${THALAMUS_TEST_CQL:-}" ] || [ ! -x "$here/cassandra.sh" ]; then
    exec "$@"
fi

dir=$(mktemp -d "${TMPDIR:-/tmp}/thalamus-cassandra.XXXXXX")
finish() {
    "$here/cassandra.sh" stop "$dir" || true
    rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Every server under test has a keyspace of its own, and a table costs memory: the heap is larger than for one server.
export CASSANDRA_HEAP=${CASSANDRA_HEAP:-1g}

# The script's last line names a node; what it says before is for the reader.
said=$("$here/cassandra.sh" start "$dir")
echo "$said" >&2
export THALAMUS_TEST_CQL=${said##*$'\n'}
"$@"
