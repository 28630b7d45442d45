#!/usr/bin/env bash
# Three nodes on this machine; one key is written, the leader is killed with -9, and the key is
# read from a node that is left. Everything is gone again afterwards.
#
#   examples/kill_the_leader.sh [PATH_OF_ANCHOR_PYZ [FIRST_PORT]]
set -euo pipefail

anchor=$(realpath "${1:-./anchor.pyz}")
port=${2:-9001}
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

leader() { verb status --json | python3 -c '
import json, re, sys
print(re.search(r"\"leader_id\": *\"([^\"]+)\"", sys.stdin.read()).group(1))'; }

echo "Starting three nodes below $directory."
start node1 "$port"
start node2 "$((port + 1))" "localhost:$port"
start node3 "$((port + 2))" "localhost:$port"

verb put motto "lose a node, keep the data"
for _ in {1..100}; do
    [ "$(verb members | grep -c 'leader\|follower')" = 3 ] && break
    sleep 0.2
done
verb members

victim=$(leader)
echo "Killing the leader, $victim."
kill -9 "${process[$victim]}"

verb put answered-by "those that are left"
echo "motto: $(verb get motto)"
echo "answered-by: $(verb get answered-by)"

echo "Starting $victim again."
start "$victim" "$((port + ${victim#node} - 1))" "localhost:$port,localhost:$((port + 1))"
verb status
