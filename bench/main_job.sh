#!/usr/bin/env bash
# The main job, again and again, in alternation with something to compare it with.
#
#   bench/main_job.sh                          5 rounds of both drivers and both seedings
#   REPS=9 bench/main_job.sh                   more rounds
#   BASELINE='COMMAND' bench/main_job.sh       COMMAND runs in every round, too; it prints
#                                              "wall SECONDS" in one of its lines
#   LOADGEN='PATH ...' bench/main_job.sh       another build, or more options
#
# Prints the median, least and most of wall seconds and of both programs' CPU seconds, and the
# ratio of medians to the baseline's. The machine must have nothing else to do: figures of a busy
# one mean little, and only those of one run may be compared.
set -euo pipefail
cd "$(dirname "$0")/.."
REPS=${REPS:-5}
LOADGEN=${LOADGEN:-target/release/loadgen}
[ -n "${LOADGEN_BUILT:-}" ] || cargo build --quiet --release --bin loadgen

raw=$(mktemp)
trap 'rm -f "$raw"' EXIT
for ((round = 1; round <= REPS; round++)); do
    if [ -n "${BASELINE:-}" ]; then
        wall=$(bash -c "$BASELINE" 2>&1 | awk '{ for (i = 1; i < NF; i++) if ($i == "wall") { print $(i + 1); exit } }')
        printf 'baseline\t%s\t0\t0\n' "$wall" >> "$raw"
    fi
    for driver in io-uring epoll; do
        for seeding in spread origin; do
            # shellcheck disable=SC2086
            $LOADGEN --clients 100 --file 100M --seeding "$seeding" --driver "$driver" \
                --relay-args "--driver $driver" --json - 2> /dev/null |
                awk -v name="$driver, $seeding" -F'[:,]' '
                    /"relay": *\{/ { part = "relay" }
                    /"loadgen": *\{/ { part = "loadgen" }
                    /"wall_seconds"/ { wall = $2 }
                    /"cpu_seconds"/ { cpu[part] = $2 }
                    END { printf "%s\t%s\t%s\t%s\n", name, wall, cpu["relay"], cpu["loadgen"] }
                ' >> "$raw"
        done
    done
done

printf '%-18s %28s %18s %18s %8s\n' "main job, $REPS rounds" 'wall s: median (least, most)' \
    'relay CPU s' 'loadgen CPU s' 'ratio'
cut -f1 "$raw" | awk '!seen[$0]++' | while IFS= read -r name; do
    column() { awk -F'\t' -v n="$name" -v c="$1" '$1 == n { print $c }' "$raw" | sort -n; }
    median() { awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
    base=$(awk -F'\t' '$1 == "baseline" { print $2 }' "$raw" | sort -n | median)
    wall=$(column 2 | median)
    printf '%-18s %12.2f (%.2f, %.2f) %18.2f %18.2f %8s\n' "$name" "$wall" \
        "$(column 2 | head -1)" "$(column 2 | tail -1)" "$(column 3 | median)" "$(column 4 | median)" \
        "$(awk -v a="$wall" -v b="${base:-0}" 'BEGIN { if (b > 0) printf "%.2f", a / b; else print "-" }')"
done
