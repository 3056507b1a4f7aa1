//go:build powernode_killpoints

package durable

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// This file makes an agent for the tests of package test/vm, whose machine loses its power at a
// labelled operation: the kernel parameter test.kill=PROCESS/LABEL@N names the Nth operation with that
// label of the boot (PROCESS is "boot") or of one of the running system's commands ("service", "update", "attach"…);
// test.kill=record has all of them said on the console. A file /run/test.kill says the same of the commands that begin
// while it is there; with "kill " before it, the process alone is ended then, as by kill -9. A product is built without it (internal/arch).

// reached are the operations of this process so far.
var reached struct {
	mu   sync.Mutex
	wish string
	// alone says that the machine goes on.
	alone bool
	read  bool
	seen  map[string]int
}

// Reach marks the place of a labelled operation.
func Reach(op string) {
	r := &reached
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.read {
		r.read, r.seen = true, make(map[string]int)
		r.wish, r.alone = killWish()
	}
	if r.wish == "" {
		return
	}
	process := "boot"
	for _, name := range []string{"service", "update", "attach", "detach", "rollback", "finish"} {
		if slices.Contains(os.Args, name) {
			process = name
		}
	}
	r.seen[op]++
	point := process + "/" + op + "@" + strconv.Itoa(r.seen[op])
	switch r.wish {
	case "record":
		sayKill("killpoint " + point)
	case point:
		sayKill("killed at " + point)
		if r.alone {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		// The kernel restarts the machine at once: nothing that is in memory is written (emergency_restart
		// in kernel/reboot.c). QEMU ends there.
		_ = os.WriteFile("/proc/sysrq-trigger", []byte("b"), 0o200)
		select {}
	}
}

// killWish reads the file, else the kernel parameter.
func killWish() (wish string, alone bool) {
	if text, err := os.ReadFile("/run/test.kill"); err == nil {
		return strings.CutPrefix(strings.TrimSpace(string(text)), "kill ")
	}
	line, _ := os.ReadFile("/proc/cmdline") // nothing is labelled before there is a /proc
	for word := range strings.FieldsSeq(string(line)) {
		if wish, ok := strings.CutPrefix(word, "test.kill="); ok {
			return wish, false
		}
	}
	return "", false
}

// sayKill says something on the serial console, which waits until it is out.
func sayKill(line string) {
	f, err := os.OpenFile("/dev/ttyS0", os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = f.WriteString("\r\n" + line + "\r\n")
	_ = f.Sync()
}
