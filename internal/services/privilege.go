package services

import (
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
)

// harmless are the capabilities that a service has for the asking. None of them leads to all of root's rights beside what each service is held to; whatever
// isn't here does, or may (capabilities(7)), and needs the trust policy's consent. Some look tamer than they are: who may own any file (CHOWN), be any user
// (SETUID, SETGID), set capabilities on files (SETFCAP), load a kernel (SYS_BOOT) or set the clock by which signatures are judged (SYS_TIME) takes the rest, too.
// A user namespace makes no difference: in PrivateUsers=, root is the machine's root and its files are root's.
var harmless = strings.Fields(`
	CAP_AUDIT_READ CAP_AUDIT_WRITE CAP_BLOCK_SUSPEND CAP_IPC_LOCK CAP_KILL CAP_LEASE CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_NET_BROADCAST
	CAP_NET_RAW CAP_SYS_CHROOT CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYSLOG CAP_WAKE_ALARM`)

// privilegedCalls are the groups of system calls that manage a system, and that no service without consent has use for.
var privilegedCalls = strings.Fields(`@clock @cpu-emulation @debug @module @mount @obsolete @privileged @raw-io @reboot @swap`)

// privilegedTypes are the types of SELinux's usual policies that may do everything, beside those that begin with "unconfined".
var privilegedTypes = strings.Fields(`init_t initrc_t kernel_t rpm_t rpm_script_t spc_t sysadm_t`)

// consents reports whether the trust policy lets a module have services with all of root's rights.
func (n Node) consents(module string) bool { return slices.Contains(n.Privileged, module) }

// needsConsent refuses what only the trust policy can allow.
func needsConsent(instead, format string, args ...any) error {
	return fault.New(fault.Refuse, fault.Policy, "add the module to allow_privileged_services in the trust policy, or "+instead,
		format+", and the trust policy doesn't allow that", args...)
}

// unconfinedAppArmor reports whether a profile of AppArmor by its name holds nobody to anything: of a namespace, or stacked, too.
func unconfinedAppArmor(profile string) bool {
	parts := strings.FieldsFunc(profile, func(r rune) bool { return strings.ContainsRune("/:&", r) })
	return slices.Contains(parts, "unconfined")
}

// unconfinedSELinux reports the same of a context, user:role:type and a level.
func unconfinedSELinux(context string) bool {
	parts := strings.Split(context, ":")
	return len(parts) < 3 || strings.HasPrefix(parts[2], "unconfined") || slices.Contains(privilegedTypes, parts[2])
}

// withinRoot keeps a unit that is root without capabilities from what asks for no more than the number 0: systemd and the bus, which start anything for
// it, disks, and the files that others run by or believe.
func withinRoot(w *writer) {
	w.yes("PrivateDevices")
	w.set("InaccessiblePaths", "-/persist -/run/dbus -/run/systemd/private")
	w.set("ReadOnlyPaths", "-/root -/run/powernode -/run/systemd -/run/udev -/var/spool/cron")
}
