# Sourced by the bench scripts: a release server in a temporary folder, and the load generator pointed at it.
#
#   $report          the folder of the reports (REPORT, else target/bench), emptied of older ones
#   start_server     starts it on $data, waits until it is healthy; more words are flags
#   stop_server      ends it politely
#   run NAME WORDS   one load, its report kept as NAME
#   figure NAME F    a figure of a report that was kept

target=${CARGO_TARGET_DIR:-target}/release
load=${LOAD_BIN:-$target/load}
thalamus=${THALAMUS_BIN:-$target/thalamus}
dir=$(mktemp -d "${TMPDIR:-/tmp}/thalamus-bench.XXXXXX")
data=$dir/data
server=
listen=127.0.0.1:$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export THALAMUS_ADMIN_EMAIL=admin@example.com THALAMUS_ADMIN_PASSWORD=Bench-$RANDOM-$RANDOM-Run

say() { echo "bench: $*" >&2; }

report_in() { # DIR
    report=$1
    mkdir -p "$report"
    rm -f "$report"/*.json "$report"/*.md "$report"/*.svg
}

serve_words() { # FLAGS...
    echo "$thalamus" serve --listen "$listen" --data-dir "$data" "$@"
}

start_server() { # FLAGS...
    # shellcheck disable=SC2046 # no word has a space
    $(serve_words "$@") >>"$dir/server.log" 2>&1 &
    server=$!
    for _ in $(seq 600); do
        if curl -sf -m 1 "http://$listen/health" >/dev/null; then return; fi
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 20 "$dir/server.log" >&2
    say "the server does not start"
    exit 1
}

stop_server() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
        server=
    fi
}

finish() {
    stop_server
    rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

run() { # NAME SCENARIO OPTIONS...
    local name=$1
    shift
    say "$name: load $*"
    "$load" "$@" --url "http://$listen" --project bench --server-pid "$server" --server-data "$data" \
        --report "$report" --as "$name" >/dev/null
}

figure() { # REPORT FIGURE
    python3 -c 'import json, sys; print(dict(json.load(open(sys.argv[1]))["figures"])[sys.argv[2]])' "$report/$1.json" "$2"
}

# The part of a figure, as a whole number.
part_of() { # VALUE FACTOR
    awk -v value="$1" -v factor="$2" 'BEGIN { printf "%d", value * factor }'
}

version() {
    echo "$("$thalamus" --version), $(git describe --always --dirty 2>/dev/null || echo 'no commit')"
}
