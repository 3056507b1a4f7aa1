#!/bin/bash
# Times our object store against `mkcomposefs --digest-store`: a tree of 40,000 files into a new
# store, with its image, until everything is on the disk. Both must come to the same image digest.
#
#   bench/store.sh [TREE]        uses TREE instead of making one, /usr/share for example
#
# MKCOMPOSEFS names the C program; DIR is where the work is done (not on a tmpfs); RUNS says how
# often each is run, in turns, of which the fastest counts.
set -eu
cd "$(dirname "$0")/.."
here=$(pwd)
runs=${RUNS:-3}
mkcomposefs=${MKCOMPOSEFS:-$here/.cache/tools/bin/mkcomposefs}
[ -x "$mkcomposefs" ] || mkcomposefs=$(command -v mkcomposefs) || {
    echo "bench/store.sh: no mkcomposefs; run scripts/setup or set MKCOMPOSEFS" >&2
    exit 1
}
work=$(mktemp -d "${DIR:-/var/tmp}/bench-store-XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM
go build -o "$work/run" ./bench/store

tree=${1:-}
if [ -z "$tree" ]; then
    tree=$work/tree
    "$work/run" -make 40000 "$tree"
fi
sync
tar -cf - -C "$tree" . | cat >/dev/null # into the page cache

# timed NAME COMMAND... appends seconds of wall clock, user and system time to the file NAME. The
# command's store is $store, a new one for each run: ext4 is slow to give out inodes again that
# were freed a moment ago, so nothing is removed before the end.
timed() {
    name=$1
    shift
    mkdir "$store"
    sync
    { time -p sh -c '"$@" && sync -f "$0"' "$store" "$@" >"$work/$name.out"; } 2>"$work/time"
    awk '{ printf "%s ", $2 } END { print "" }' "$work/time" >>"$work/$name"
}

for i in $(seq "$runs"); do
    store=$work/store-theirs-$i
    timed theirs "$mkcomposefs" --min-version=1 --print-digest --digest-store="$store" "$tree" "$work/image"
    store=$work/store-ours-$i
    timed ours "$work/run" "$tree" "$store"
done
theirs=$(cat "$work/theirs.out")
ours=$(cut -d ' ' -f 1 "$work/ours.out")
[ "$theirs" = "$ours" ] || { echo "digests differ: $ours, mkcomposefs says $theirs" >&2; exit 1; }

files=$(find "$tree" -type f | wc -l)
size=$(du -sm --apparent-size "$tree" | cut -f 1)
t=$(sort -n "$work/theirs" | head -n 1)
o=$(sort -n "$work/ours" | head -n 1)
echo "$t $o" | awk -v what="$files files, $size MiB into a store" '{
    printf "%-36s %8s %8s %8s %6s\n", what, "wall s", "user s", "system s", "ratio"
    printf "%-36s %8.2f %8.2f %8.2f %6.2f\n", "mkcomposefs --digest-store (C)", $1, $2, $3, 1
    printf "%-36s %8.2f %8.2f %8.2f %6.2f\n", "ours", $4, $5, $6, $4 / $1
}'
