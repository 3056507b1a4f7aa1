#!/usr/bin/env bash
# boot.sh -- pull to mounted union for the demo's modules: cold store and warm registry, then warm store; and the sizes of
# the programs. As root.
set -euo pipefail
cd "$(dirname "$0")/.."
CI=1 scripts/demo 2>&1 | sed -n '/^== 7/,$p'
ls -l dist/linux-*/ | awk 'NF == 9 {printf "%-20s %10d bytes\n", $9, $5} /^dist/ {print}'
