package module

import (
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
)

// capabilities are the names of include/uapi/linux/capability.h, in their order there, without
// the prefix; Linux 5.9 added the last.
var capabilities = strings.Fields(`
	CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
	NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
	SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
	SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
	WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

// checkCapability reports whether s is a capability that the kernel knows: a misspelt one would
// otherwise go without notice.
func checkCapability(s string) error {
	if name, ok := strings.CutPrefix(s, "CAP_"); !ok || !slices.Contains(capabilities, name) {
		return fault.New(fault.Refuse, fault.Input, "see capabilities(7); names look like CAP_NET_BIND_SERVICE", "%.100q is not a capability", s)
	}
	return nil
}
