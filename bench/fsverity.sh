#!/bin/sh
# Times our fs-verity digest against `fsverity digest` (package fsverity) on one file, in the page
# cache: with one core, and with all. The digests must agree.
#
#   bench/fsverity.sh [MiB]      size of the file, 1024 by default
set -eu
cd "$(dirname "$0")/.."
size=${1:-1024}
runs=${RUNS:-5}
command -v fsverity >/dev/null || { echo "bench/fsverity.sh: install the package fsverity first" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
go build -o "$work/ours" ./bench/fsverity
head -c "${size}M" /dev/urandom >"$work/file"
cat "$work/file" >/dev/null

# best COMMAND... prints the shortest of several runs in seconds.
best() {
    for _ in $(seq "$runs"); do
        start=$(date +%s%N)
        "$@" >"$work/out"
        end=$(date +%s%N)
        echo "$((end - start))"
    done | sort -n | head -n 1 | awk '{ printf "%.3f", $1 / 1e9 }'
}

theirs=$(best fsverity digest --compact "$work/file")
want=$(cat "$work/out")
one=$(best "$work/ours" -p 1 "$work/file")
read -r got _ <"$work/out"
[ "$got" = "$want" ] || { echo "digests differ: $got, fsverity says $want" >&2; exit 1; }
all=$(best "$work/ours" "$work/file")
read -r got _ <"$work/out"
[ "$got" = "$want" ] || { echo "digests differ: $got, fsverity says $want" >&2; exit 1; }

awk -v s="$size" -v t="$theirs" -v o="$one" -v a="$all" -v n="$(nproc)" 'BEGIN {
    printf "%-28s %8s %8s %7s\n", "fs-verity digest of " s " MiB", "seconds", "MB/s", "ratio"
    printf "%-28s %8.3f %8.0f %7.2f\n", "fsverity digest (C)", t, s * 1.048576 / t, 1
    printf "%-28s %8.3f %8.0f %7.2f\n", "ours, 1 core", o, s * 1.048576 / o, o / t
    printf "%-28s %8.3f %8.0f %7.2f\n", "ours, " n " cores", a, s * 1.048576 / a, a / t
}'
