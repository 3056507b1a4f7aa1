package services

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// noEgress returns why the kernel can't filter what a unit's processes send and receive, "" where it can. systemd would
// start the unit all the same, and say so in its log only. try is tryFilter; root is where /proc is below.
func noEgress(root string, try func() error) string {
	err := try()
	switch {
	case err == nil:
		return ""
	// One without the rights to load programs, or with a filter of system calls, can't try. The kernel's own list of its
	// functions tells, too: this is the one that runs the programs (include/linux/bpf-cgroup.h).
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOSYS):
		if hasSymbol(root, "__cgroup_bpf_run_filter_skb") {
			return ""
		}
	}
	return fmt.Sprintf("it takes no BPF programs for cgroups (CONFIG_CGROUP_BPF): %v", err)
}

// programLoad and programAttach are how union bpf_attr of linux/bpf.h begins for these commands.
type (
	programLoad struct {
		kind, count           uint32
		instructions, license uint64
		logLevel, logSize     uint32
		log                   uint64
		kernelVersion, flags  uint32
	}
	programAttach struct{ target, program, kind, flags uint32 }
)

// tryFilter loads a program of the kind that systemd filters by and attaches it to nothing, as systemd itself finds
// out: a kernel that could attach it says that this is no cgroup (EBADF), another that it can't (EINVAL).
func tryFilter() error {
	// r0 = 1; exit: let it pass (Documentation/bpf/standardization/instruction-set.rst).
	var instructions [16]byte
	binary.NativeEndian.PutUint64(instructions[:], 0)
	instructions[0], instructions[8] = 0xb7, 0x95
	binary.NativeEndian.PutUint32(instructions[4:], 1)
	license := []byte("GPL\x00")
	load := programLoad{
		kind: unix.BPF_PROG_TYPE_CGROUP_SKB, count: 2,
		instructions: uint64(uintptr(unsafe.Pointer(&instructions[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	var pins runtime.Pinner
	pins.Pin(&instructions[0])
	pins.Pin(&license[0])
	defer pins.Unpin()
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
	if errno != 0 {
		return fmt.Errorf("load a program: %w", errno)
	}
	program := os.NewFile(fd, "bpf program")
	defer program.Close()
	attach := programAttach{target: ^uint32(0), program: uint32(fd), kind: unix.BPF_CGROUP_INET_EGRESS} //nolint:gosec // a descriptor
	_, _, errno = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&attach)), unsafe.Sizeof(attach))
	if errno != unix.EBADF {
		return fmt.Errorf("attach a program: %w", errno)
	}
	return nil
}

// symbolsMax bounds what is read of the kernel's list of symbols, in bytes; it has some 15 million.
const symbolsMax = 256 << 20

// hasSymbol reports whether the kernel has a function (/proc/kallsyms: address, kind, name).
func hasSymbol(root, name string) bool {
	f, err := os.Open(filepath.Join(root, "proc/kallsyms"))
	if err != nil {
		return false
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, symbolsMax))
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) >= 3 && fields[2] == name {
			return true
		}
	}
	return false
}
