#!/usr/bin/env bash
# vm-read.sh -- reading the root of a machine whose kernel checks every read, against copies of the same files on the same
# ext4, plain and with fs-verity on each file: find, many small files, large files; with nothing in memory, and right after. As
# root.
#
# RUNS, MODULES and ICOUNT are those of bench/vm-boot.sh. The emulated processor has no instructions for SHA-256, so that the
# kernel's hashing takes several times the share that it has on a real one.
set -euo pipefail
cd "$(dirname "$0")/.."
modules=$(bench/vm/modules)
cd test/vm
POWERNODE_BENCH_MODULES=$modules go test -run '^$' -bench '^BenchmarkRead$' -benchtime "${RUNS:-5}x" -timeout 60m .
