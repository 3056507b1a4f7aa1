#!/usr/bin/env bash
# vm-boot.sh -- how long a virtual machine takes from power-on to the init of a composed root, stage by stage: the first boot,
# booting it again, and again without a network; its memory; the size of the initramfs. As root.
#
# The machine is emulated (QEMU without KVM): its times are several times those of a real one, and grow with the host's load,
# which is printed. ICOUNT=1 has its clock count instructions instead, two nanoseconds each, whatever the host does; the disk's
# time counts as it passes all the same.
#
# RUNS is how often the second boot is repeated, 5 by default. MODULES is a directory with the layouts of the demo's modules;
# they are built there if it is empty. MODULES=none makes a tree of the same size instead, which takes no network.
set -euo pipefail
cd "$(dirname "$0")/.."
modules=$(bench/vm/modules)
cd test/vm
POWERNODE_BENCH_MODULES=$modules go test -run '^$' -bench '^BenchmarkBoot$' -benchtime "${RUNS:-5}x" -timeout 60m .
