#!/usr/bin/env bash
# Three nodes on this machine; one key is written, the leader is killed with -9, and the key is
# read from a node that is left. Everything is gone again afterwards.
#
#   examples/kill_the_leader.sh [PATH_OF_ANCHOR_PYZ [FIRST_PORT]]
#
# The nodes take three ports from FIRST_PORT (9101) and three from FIRST_PORT + 1000, for HTTP.
set -euo pipefail
set -m # each node in a process group of its own: it has a worker, which is to die with it

anchor=$(realpath "${1:-./anchor.pyz}")
port=${2:-9101}
directory=$(mktemp -d)
endpoints=localhost:$((port + 1000)),localhost:$((port + 1001)),localhost:$((port + 1002))
declare -A process

cleanup() {
    for name in "${!process[@]}"; do
        kill "${process[$name]}" 2>/dev/null || true
    done
    wait
    rm -rf "$directory"
}
trap cleanup EXIT

start() { # start NAME PORT [PEERS]
    "$anchor" --id "$1" --port "$2" --dir "$directory/$1" ${3:+--peers "$3"} \
        2>>"$directory/$1.log" &
    process[$1]=$!
}

verb() { "$anchor" "$@" --endpoints "$endpoints" --timeout 20s; }

leader() { verb members | awk '$2 == "leader" { print $1 }'; }

echo "Starting three nodes below $directory."
start node1 "$port"
start node2 "$((port + 1))" "localhost:$port"
start node3 "$((port + 2))" "localhost:$port"

voters() { verb members 2>/dev/null | grep -c 'leader\|follower' || true; }

all_run() { # or say what the one that does not run has said, and give up
    local name
    for name in "${!process[@]}"; do
        if ! kill -0 "${process[$name]}" 2>/dev/null; then
            { echo "$name has ended. It said:"; cat "$directory/$name.log"; } >&2
            exit 1
        fi
    done
}

until [ "$(voters)" = 3 ]; do all_run; sleep 0.2; done
verb put motto "lose a node, keep the data" >/dev/null
verb members

victim=$(leader)
echo "Killing the leader, $victim."
kill -9 -- "-${process[$victim]}"
wait "${process[$victim]}" 2>/dev/null || true

verb put answered-by "those that are left" >/dev/null
echo "motto: $(verb get motto)"
echo "answered-by: $(verb get answered-by)"

echo "Starting $victim again."
start "$victim" "$((port + ${victim#node} - 1))" "localhost:$port,localhost:$((port + 1))"
until verb status >/dev/null 2>&1; do all_run; sleep 0.2; done
verb status
