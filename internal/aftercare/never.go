package aftercare

import (
	"path"
	"strings"
)

// never are units that nothing here restarts or stops, by patterns of path.Match, with what would go with them.
// What of it changed takes effect when the machine restarts.
var never = []struct{ pattern, why string }{
	{"powernode-agent.service", "it is the agent itself"},
	{"powernode-agent-*.service", "it is a command of the agent"},
	{"dbus*.service", "every program on the message bus would lose it"},
	{"dbus*.socket", "every program on the message bus would lose it"},
	{"systemd-journald*", "what services write to it would be lost"},
	{"systemd-udevd*", "events of devices would be lost"},
	{"systemd-logind.service", "people's sessions hang on it"},
	{"systemd-networkd*", "the node's network may hang on it"},
	{"systemd-resolved.service", "the node's network may hang on it"},
	{"networking.service", "the node's network hangs on it"},
	{"ifup@*.service", "the node's network hangs on it"},
	{"NetworkManager*.service", "the node's network hangs on it"},
	{"wpa_supplicant*.service", "the node's network hangs on it"},
	{"connman*.service", "the node's network hangs on it"},
	{"dhcp*.service", "the node's network hangs on it"},
	{"iwd.service", "the node's network hangs on it"},
	{"cloud-*.service", "it runs once for each boot"},
	{"systemd-*.service", "it is part of the start of the machine"},
	{"getty@*.service", "somebody may be logged in there"},
	{"serial-getty@*.service", "somebody may be logged in there"},
	{"console-getty.service", "somebody may be logged in there"},
	{"user@*.service", "somebody's session runs in it"},
	{"user-runtime-dir@*.service", "somebody's session runs in it"},
	{"display-manager.service", "people's sessions hang on it"},
	{"gdm*.service", "people's sessions hang on it"},
	{"lightdm.service", "people's sessions hang on it"},
	{"sddm.service", "people's sessions hang on it"},
	{"emergency.service", "the machine is being mended in it"},
	{"rescue.service", "the machine is being mended in it"},
	{"plymouth*.service", "it is part of the start of the machine"},
}

// harmless are units of never's wide patterns that may be restarted all the same: what hangs on them is theirs alone.
var harmless = []string{
	"systemd-timesyncd.service", "systemd-oomd.service", "systemd-sysctl.service", "systemd-binfmt.service",
	"systemd-modules-load.service", "systemd-journal-upload.service", "systemd-journal-remote.service", "systemd-journal-gatewayd.service",
	"systemd-machined.service", "systemd-importd.service", "systemd-portabled.service", "systemd-hostnamed.service",
	"systemd-localed.service", "systemd-timedated.service",
}

// hands says why nobody but a restart of the machine may touch a unit; "" where one may.
func hands(unit string) string {
	switch kind := kindOf(unit); {
	case kind == "service", kind == "socket", kind == "timer", kind == "path":
	case unit == "init.scope":
		return "the first process lasts as long as the machine runs"
	case kind == "scope":
		return "somebody else started it"
	default:
		return "a " + kindOf(unit) + " isn't made anew while it is in use"
	}
	for _, name := range harmless {
		if unit == name {
			return ""
		}
	}
	// An instance of a template has the name of that.
	for _, n := range never {
		if ok, err := path.Match(n.pattern, strings.ReplaceAll(unit, "/", "-")); ok && err == nil {
			return n.why
		}
	}
	return ""
}
