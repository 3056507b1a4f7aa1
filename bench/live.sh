#!/usr/bin/env bash
# live.sh -- attaches and detaches a module of 500 files on roots of 10,000, 60,000 and 200,000 files, and on one of 60,000 files in
# 5, 50 and 400 modules: until the plan is known, until all is done, how long the directories take to be replaced, and the longest
# that a lookup takes meanwhile. Then stat and find on the composed root, against a stack of a layer for each module. As root,
# on Linux 6.15 or newer; it takes a few minutes and 2 GB.
#
# All of it happens in a mount namespace of its own, with real stores, signed modules and mounts, at the integrity level that the
# machine can have, and by the code of attach and detach; nothing is fetched, as the modules are in the store already. Each module that
# is attached makes a root image that wasn't there before.
#
# RUNS is how often each is done, 5 by default; FILES and MODULES are lists of other sizes. DIR is where the stores are made (not on a
# tmpfs). PROFILE=FILE writes a profile of the first row to FILE.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${RUNS:-5}
files=${FILES:-10000 60000 200000}
modules=${MODULES:-5 50 400}
work=$(mktemp -d "${DIR:-/var/tmp}/bench-live-XXXXXX")
trap 'rm -rf "$work"' EXIT
CGO_ENABLED=0 go build -o "$work/live" ./bench/live
live() { unshare --mount "$work/live" "$@"; }

echo "$(nproc) processors, Linux $(uname -r), load $(cut -d ' ' -f 1-3 /proc/loadavg)"
"$work/live" header change
for f in $files; do
  live change "$work" "$f" 5 "$runs"
  unset PROFILE
  [ "$f" = 60000 ] || rm -rf "$work/$f-files"
done
for m in $modules; do
  [ "$m" = 5 ] || live change "$work" 60000 "$m" "$runs"
done
"$work/live" header lookup
for m in $modules; do
  live lookup "$work" 60000 "$m" "$runs"
done
