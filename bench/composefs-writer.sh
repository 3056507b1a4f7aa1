#!/bin/sh
# Times our composefs writer against `mkcomposefs --from-file` on the dump of one tree, side by
# side: wall time, CPU time and peak memory. The images must be the same.
#
#   bench/composefs-writer.sh [ENTRIES]      size of the tree, 60000 by default
#
# RUNS (default 7) is how often each runs; the shortest times and the least memory count.
set -eu
cd "$(dirname "$0")/.."
entries=${1:-60000}
runs=${RUNS:-7}
mkcomposefs=.cache/tools/bin/mkcomposefs
[ -x "$mkcomposefs" ] || mkcomposefs=mkcomposefs
command -v "$mkcomposefs" >/dev/null || { echo "bench/composefs-writer.sh: run scripts/setup first" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
CGO_ENABLED=0 go build -o "$work/ours" ./bench/composefs
CGO_ENABLED=0 go build -o "$work/peak" ./bench/peak
"$work/ours" dump "$entries" >"$work/dump"

# The runs alternate, so that whatever else the machine does falls on both.
for _ in $(seq "$runs"); do
    "$work/peak" "$mkcomposefs" --from-file "$work/dump" "$work/theirs.img" >>"$work/theirs"
    "$work/peak" "$work/ours" image "$work/dump" "$work/ours.img" >>"$work/ours.log"
done
cmp "$work/theirs.img" "$work/ours.img"

least() { sort -n -k "$2,$2" "$1" | awk -v f="$2" 'NR == 1 { print $f }'; }
printf '%s entries, image of %s bytes, the same from both\n' "$entries" "$(wc -c <"$work/ours.img")"
awk -v cw="$(least "$work/theirs" 1)" -v cc="$(least "$work/theirs" 2)" -v cm="$(least "$work/theirs" 3)" \
    -v ow="$(least "$work/ours.log" 1)" -v oc="$(least "$work/ours.log" 2)" -v om="$(least "$work/ours.log" 3)" 'BEGIN {
    printf "%-24s %10s %10s %12s\n", "", "wall (s)", "CPU (s)", "peak (MiB)"
    printf "%-24s %10.3f %10.3f %12.1f\n", "mkcomposefs 1.0.8 (C)", cw, cc, cm / 1024
    printf "%-24s %10.3f %10.3f %12.1f\n", "ours", ow, oc, om / 1024
    printf "%-24s %10.2f %10.2f %12.2f\n", "ratio", ow / cw, oc / cc, om / cm
}'
