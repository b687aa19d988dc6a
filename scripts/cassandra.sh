#!/usr/bin/env bash
# A real Cassandra 5 for tests, from Maven jars: no image, no root.
#
#   scripts/cassandra.sh install                             fetches the jars, so that nothing else needs a network
#   scripts/cassandra.sh start DIR [--nodes N] [--durable]   prints the contact point when all nodes answer
#   scripts/cassandra.sh stop DIR                            stops the nodes that DIR started
#   scripts/cassandra.sh status DIR                          prints the contact point, or fails
#
# DIR gets one folder for each node: configuration, data, log, pid. Starting it again after `stop` or a kill
# finds its data, on the same ports. Nodes listen on 127.0.1.1, 127.0.1.2 and so on.
#
# --durable   an acknowledged write is on disk (commitlog_sync: batch). Without it the server starts faster,
#             and loses everything, schema included, when it is killed: never use that in a crash test.
#
# CASSANDRA_HEAP (256m) is the heap of a node. Needs Java 17 and Maven; the jars go to .deps/cassandra, once.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
recipe=$root/scripts/cassandra
jars=$root/.deps/cassandra
start_seconds=180

fail() { echo "cassandra: $*" >&2; exit 1; }

fetch_jars() {
  # Concurrent starts fetch once; a fetch that was cut short leaves no marker.
  mkdir -p "$jars"
  exec 9>"$jars/.lock"
  flock 9
  if ! cmp -s "$recipe/pom.xml" "$jars/.fetched"; then
    command -v mvn >/dev/null || fail "mvn is missing"
    rm -rf "$jars/lib"
    mvn -q -B -f "$recipe/pom.xml" dependency:copy-dependencies -DoutputDirectory="$jars/lib" >&2
    cp "$recipe/pom.xml" "$jars/.fetched"
  fi
  exec 9>&-
}

answers() { (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; } # ADDRESS PORT

# A port that is free on the addresses of all nodes. Below the range the kernel gives to clients.
free_port() { # NODES
  local port tries node
  for tries in $(seq 200); do
    port=$((12000 + RANDOM % 18000))
    for node in $(seq "$1"); do
      if answers "127.0.1.$node" "$port"; then continue 2; fi
    done
    echo "$port"
    return
  done
  fail "no free port"
}

# Whether the node runs: the pid is alive and still that of a server of this folder.
runs() { # NODE_DIR
  local pid
  pid=$(cat "$1/pid" 2>/dev/null) && tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qxF -- "-Dcassandra.storagedir=$1"
}

nodes_of() { find "$1" -mindepth 1 -maxdepth 1 -name 'node*' 2>/dev/null | sort; } # DIR

configure() { # DIR NODES COMMITLOG_SYNC
  local dir=$1 nodes=$2 native storage seeds="" node home
  native=$(free_port "$nodes")
  storage=$(free_port "$nodes")
  for node in $(seq "$nodes"); do seeds+=${seeds:+,}127.0.1.$node:$storage; done
  for node in $(seq "$nodes"); do
    home=$dir/node$node
    mkdir -p "$home"
    # Tokens at equal distances around the ring.
    sed -e "s|@TOKEN@|$(awk -v n="$nodes" -v i="$node" 'BEGIN { printf "%.0f", -2^63 + (i - 1) * (2^64 / n) }')|" \
      -e "s|@SEEDS@|$seeds|" -e "s|@ADDRESS@|127.0.1.$node|" -e "s|@STORAGE_PORT@|$storage|" \
      -e "s|@NATIVE_PORT@|$native|" -e "s|@DIR@|$home|" -e "s|@COMMITLOG_SYNC@|$3|" \
      "$recipe/cassandra.yaml" >"$home/cassandra.yaml"
  done
  echo "127.0.1.1:$native" >"$dir/contact"
}

launch() { # NODE_DIR UNSAFE
  local home=$1 unsafe=()
  if [[ $2 == unsafe ]]; then unsafe=(-Dcassandra.unsafesystem=true -XX:TieredStopAtLevel=1); fi
  : >"$home/system.log"
  # Descriptors above 2 belong to whoever started us, for example a lock or a pipe that must close.
  setsid nohup java "-Xms${CASSANDRA_HEAP:-256m}" "-Xmx${CASSANDRA_HEAP:-256m}" "@$recipe/jvm.options" "${unsafe[@]}" \
    "-Dcassandra.config=file://$home/cassandra.yaml" "-Dcassandra.storagedir=$home" "-Dcassandra.logdir=$home" \
    "-Dlogback.configurationFile=$recipe/logback.xml" -cp "$jars/lib/*" \
    org.apache.cassandra.service.CassandraDaemon >"$home/stdout.log" 2>&1 </dev/null 3>&- 4>&- &
  echo $! >"$home/pid"
}

# Until every node accepts clients and sees all others.
await() { # DIR
  local dir=$1 deadline=$((SECONDS + start_seconds)) home port count
  port=$(cut -d: -f2 "$dir/contact")
  count=$(nodes_of "$dir" | wc -l)
  for home in $(nodes_of "$dir"); do
    until answers "$(sed -n 's/^rpc_address: //p' "$home/cassandra.yaml")" "$port" &&
      [[ $(grep -o 'InetAddress[^ ]* [^ ]* is now UP' "$home/system.log" | sort -u | wc -l) -ge $((count - 1)) ]]; do
      runs "$home" || { tail -n 20 "$home/stdout.log" "$home/system.log" >&2; fail "$home ended"; }
      ((SECONDS < deadline)) || { tail -n 20 "$home/system.log" >&2; fail "$home is not ready after $start_seconds s"; }
      sleep 0.1
    done
  done
}

start() {
  local dir nodes=1 unsafe=unsafe sync='commitlog_sync: periodic\ncommitlog_sync_period: 10s' home
  [[ $# -ge 1 ]] || fail "start needs a folder"
  mkdir -p "$1"
  dir=$(cd "$1" && pwd)
  shift
  while (($#)); do
    case $1 in
      --nodes) nodes=${2:?}; shift 2 ;;
      --durable) unsafe=safe sync='commitlog_sync: batch'; shift ;;
      *) fail "unknown option $1" ;;
    esac
  done
  command -v java >/dev/null || fail "java is missing"
  fetch_jars
  if [[ -e $dir/contact ]]; then unsafe=$(cat "$dir/mode"); else
    configure "$dir" "$nodes" "$sync"
    echo "$unsafe" >"$dir/mode"
  fi
  for home in $(nodes_of "$dir"); do
    runs "$home" || launch "$home" "$unsafe"
  done
  await "$dir"
  cat "$dir/contact"
}

stop() {
  local dir home pid
  [[ $# -ge 1 && -d $1 ]] || fail "stop needs a folder that was started"
  dir=$(cd "$1" && pwd)
  for home in $(nodes_of "$dir"); do
    if runs "$home"; then
      pid=$(cat "$home/pid")
      kill -CONT "$pid" && kill "$pid" # a paused node would not hear it
    fi
  done
  for home in $(nodes_of "$dir"); do
    for _ in $(seq 150); do
      runs "$home" || break
      sleep 0.1
    done
    if runs "$home"; then kill -KILL "$(cat "$home/pid")"; fi
    rm -f "$home/pid"
  done
}

status() {
  local dir home
  [[ $# -ge 1 && -e $1/contact ]] || fail "not started"
  dir=$(cd "$1" && pwd)
  for home in $(nodes_of "$dir"); do
    runs "$home" || fail "$home does not run"
  done
  cat "$dir/contact"
}

command=${1:-}
shift || true
case $command in
  install) fetch_jars ;;
  start | stop | status) "$command" "$@" ;;
  *) sed -n '2,18s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
