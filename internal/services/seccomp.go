package services

import (
	"slices"
	"strings"
)

// callGroups are the groups of system calls that systemd.exec(5) has, as of systemd 252. A misspelt one would be passed over
// by systemd with no more than a line in its log.
var callGroups = strings.Fields(`
	@aio @basic-io @chown @clock @cpu-emulation @debug @default @file-system @io-event @ipc @keyring @memlock @module
	@mount @network-io @obsolete @pkey @privileged @process @raw-io @reboot @resources @sandbox @setuid @signal @swap
	@sync @system-service @timer`)

// callsOf are the calls that a capability is for and that @system-service leaves out.
var callsOf = []struct{ capability, calls string }{
	{"CAP_SYS_ADMIN", "@mount"},
	{"CAP_SYS_ADMIN", "@sandbox"},
	{"CAP_SYS_ADMIN", "unshare"},
	{"CAP_SYS_ADMIN", "setns"},
	{"CAP_SYS_CHROOT", "chroot"},
	{"CAP_SYS_MODULE", "@module"},
	{"CAP_SYS_RAWIO", "@raw-io"},
	{"CAP_SYS_TIME", "@clock"},
	{"CAP_SYS_BOOT", "@reboot"},
	{"CAP_SYS_PTRACE", "@debug"},
	{"CAP_SYS_PACCT", "acct"},
	{"CAP_SYS_TTY_CONFIG", "vhangup"},
	{"CAP_SYSLOG", "syslog"},
	{"CAP_BPF", "bpf"},
	{"CAP_PERFMON", "perf_event_open"},
	{"CAP_DAC_READ_SEARCH", "open_by_handle_at"},
}

// systemCalls returns the values of SystemCallFilter= for a seccomp_profile:
//
//	"", "default"     @system-service, which systemd recommends for services, and what the capabilities are for
//	"strict"          the same without @privileged and @resources
//	"@a @b"           these groups, and nothing besides
//
// Everything else is refused, such as the path of a file: a profile that isn't known protects nobody. Groups that manage a system need the trust
// policy's consent.
func systemCalls(profile string, capabilities []string, consent bool) ([]string, error) {
	groups := []string{"@system-service"}
	switch {
	case profile == "" || profile == "default":
		for _, c := range callsOf {
			if slices.Contains(capabilities, c.capability) {
				groups = append(groups, c.calls)
			}
		}
	case profile == "strict":
		groups = append(groups, "~@privileged", "~@resources")
	case strings.HasPrefix(profile, "@"):
		groups = strings.Fields(profile)
		for _, g := range groups {
			if !slices.Contains(callGroups, g) {
				return nil, unknownProfile(g)
			}
			if !consent && slices.Contains(privilegedCalls, g) {
				return nil, needsConsent("leave it out", "seccomp_profile has %s, for those who manage the system", g)
			}
		}
	default:
		return nil, unknownProfile(profile)
	}
	return groups, nil
}

func unknownProfile(name string) error {
	return refused("use default, strict, or groups of systemd.exec(5) such as @system-service", "the seccomp_profile %.80q isn't known here", name)
}
