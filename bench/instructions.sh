#!/usr/bin/env bash
# Instructions instead of nanoseconds: what the scheduler and the codec execute, counted by valgrind.
# For changes that the clock is too noisy to show; the same on every machine of one kind.
#
#   bench/instructions.sh                     1,000 peers x 400 chunks of the scheduler
#   bench/instructions.sh 10000 100 50        PEERS CHUNKS CACHED
#
# Prints instructions per event, and the functions that took most of them. Needs valgrind.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v valgrind > /dev/null || {
    echo "error: no valgrind: install it (apt-get install valgrind)" >&2
    exit 1
}
cargo build --quiet --release --example swarm_bench
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
valgrind --tool=callgrind --callgrind-out-file="$out/callgrind" \
    target/release/examples/swarm_bench "${1:-1000}" "${2:-400}" "${3:-100}" > "$out/stdout" 2> "$out/log"
events=$(sed -n 's/.*: \([0-9]*\) events.*/\1/p' "$out/stdout")
total=$(sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$out/log")
sed 's/, [0-9]* ns each//; s/; a join took.*/)/' "$out/stdout"
awk -v t="$total" -v e="$events" \
    'BEGIN { printf "%.0f instructions per event, joins included (%.0f in all)\n\n", t / e, t }'
callgrind_annotate --threshold=90 "$out/callgrind" | sed -n '/PROGRAM TOTALS/,$p' | cut -c1-150 | head -30
