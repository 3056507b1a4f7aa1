package services

import (
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/module"
)

// heldTo is what every unit of a module without the policy's consent says, whatever its manifest names.
var heldTo = []string{
	"NoNewPrivileges=yes", "ProtectSystem=full", "RestrictSUIDSGID=yes", "ProtectKernelModules=yes", "ProtectKernelTunables=yes", "ProtectControlGroups=yes",
	"PrivateDevices=yes", "InaccessiblePaths=-/persist -/run/dbus -/run/systemd/private", "ReadOnlyPaths=-/root -/run/powernode -/run/systemd -/run/udev -/var/spool/cron",
}

// TestInitIsHeldToWhatServicesAre without the trust policy's consent, whatever it names; with it, to what it names alone.
func TestInitIsHeldToWhatServicesAre(t *testing.T) {
	for security, set := range map[string]string{
		"": "CapabilityBoundingSet=", "security: {egress_allow: [192.0.2.1]}\n": "CapabilityBoundingSet=", "security: {capabilities: []}\n": "CapabilityBoundingSet=",
		"security: {capabilities: [CAP_KILL]}\n": "CapabilityBoundingSet=CAP_KILL", "security: {user_namespace: true}\n": "CapabilityBoundingSet=",
		"security: {seccomp_profile: default}\n": "CapabilityBoundingSet=", "security: {seccomp_profile: \"@system-service\"}\n": "CapabilityBoundingSet=",
		"security: {apparmor_profile: chronyd}\n": "CapabilityBoundingSet=", "security: {selinux_profile: \"a:b:c\"}\n": "CapabilityBoundingSet=",
		"security: {capabilities: [CAP_NET_ADMIN, CAP_SYS_RESOURCE]}\n": "CapabilityBoundingSet=CAP_NET_ADMIN CAP_SYS_RESOURCE",
	} {
		m := moduleOf(t, legacy+security)
		node := Node{Agent: agentPath, AppArmor: true, SELinux: true, Privileged: []string{"other"}}
		made, err := Make(m, node)
		if err != nil {
			t.Errorf("%q: %v", security, err)
			continue
		}
		text := string(made.Units[0].Text)
		for _, line := range append([]string{set, "SystemCallErrorNumber=EPERM"}, heldTo...) {
			if !strings.Contains(text, "\n"+line+"\n") {
				t.Errorf("%q: the init lacks %s\n%s", security, line, text)
			}
		}
		if said := strings.Join(made.Remarks, "\n"); !strings.Contains(said, "allow_privileged_services") {
			t.Errorf("%q: nobody is told: %q", security, said)
		}
		node.Privileged = []string{"chrony"}
		made, err = Make(m, node)
		if err != nil || strings.Contains(string(made.Units[0].Text), "NoNewPrivileges") || len(made.Remarks) > 0 {
			t.Errorf("%q with the policy's consent: %+v, %v", security, made, err)
		}
	}
}

// TestRootsRightsNeedConsent of services and of an init alike.
func TestRootsRightsNeedConsent(t *testing.T) {
	var words []string
	for _, name := range []string{
		"SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO", "SYS_BOOT", "SYS_TIME", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "CHOWN", "SETUID", "SETGID",
		"SETFCAP", "SETPCAP", "MKNOD", "MAC_ADMIN", "MAC_OVERRIDE", "BPF", "PERFMON", "CHECKPOINT_RESTORE", "FSETID", "LINUX_IMMUTABLE", "IPC_OWNER",
		"SYS_PACCT", "SYS_TTY_CONFIG", "AUDIT_CONTROL",
	} {
		words = append(words, "capabilities: [CAP_"+name+"]", "user_namespace: true, capabilities: [CAP_KILL, CAP_"+name+"]")
	}
	for _, group := range privilegedCalls {
		words = append(words, `seccomp_profile: "@system-service `+group+`"`)
	}
	for _, profile := range []string{"unconfined", "a//unconfined", "x:unconfined"} {
		if appArmorForm.MatchString(profile) {
			words = append(words, `apparmor_profile: "`+profile+`"`)
		}
	}
	for _, context := range []string{"system_u:system_r:unconfined_t:s0", "u:r:unconfined_service_t", "u:r:init_t:s0-s0:c0.c1023", "u:r:spc_t"} {
		words = append(words, `selinux_profile: "`+context+`"`)
	}
	const service = "schema_version: 1\nname: chrony\nservices:\n- {name: a, start_command: /bin/a}\n- {name: b, start_command: /bin/b, user: www-data}\n"
	for _, word := range words {
		for what, manifest := range map[string]string{"service": service, "init": legacy} {
			m := moduleOf(t, manifest+"security: {"+word+"}\n")
			node := Node{Agent: agentPath, AppArmor: true, SELinux: true, Privileged: []string{"other"}}
			_, err := Make(m, node)
			if fault.AreaOf(err) != fault.Policy || fault.KindOf(err) != fault.Refuse || !strings.Contains(fault.HintOf(err), "allow_privileged_services") {
				t.Errorf("%s with %s: %v", what, word, err)
			}
			node.Privileged = []string{"chrony"}
			if _, err := Make(m, node); err != nil {
				t.Errorf("%s with %s and the policy's consent: %v", what, word, err)
			}
		}
	}
	of := moduleOf(t, "schema_version: 1\nname: chrony\nservices:\n- {name: a, start_command: /bin/a, capabilities: [CAP_SYS_ADMIN]}\n")
	if _, err := Make(of, Node{Agent: agentPath}); fault.AreaOf(err) != fault.Policy {
		t.Errorf("a capability of the service alone: %v", err)
	}
}

// TestEveryCapabilityIsJudged: a service that asks for all that are harmless is still held to everything.
func TestEveryCapabilityIsJudged(t *testing.T) {
	m := moduleOf(t, "schema_version: 1\nname: m\nsecurity: {capabilities: ["+strings.Join(harmless, ", ")+"]}\nservices:\n- {name: a, start_command: /bin/a}\n")
	made, err := Make(m, Node{Agent: agentPath})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range heldTo {
		if text := string(made.Units[0].Text); !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("lacks %s\n%s", line, text)
		}
	}
	bare := Module{Name: "m", Manifest: &module.Manifest{Name: "m", Services: []module.Service{{Name: "a", StartCommand: "/bin/a", Capabilities: []string{"CAP_OF_TOMORROW"}}}}}
	if _, err := Make(bare, Node{Agent: agentPath}); fault.AreaOf(err) != fault.Policy {
		t.Errorf("a capability that nobody knows: %v", err)
	}
}
