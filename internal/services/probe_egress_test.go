package services

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Who can't filter says so; who may not try goes by the kernel's symbols.
func TestNoEgress(t *testing.T) {
	with, without := t.TempDir(), t.TempDir()
	for root, text := range map[string]string{
		with:    "0000000000000000 T _stext\n0000000000000000 T __cgroup_bpf_run_filter_skb\n",
		without: "0000000000000000 T _stext\n0000000000000000 t __cgroup_bpf_run_filter_skb_not\n",
	} {
		if err := errors.Join(os.Mkdir(filepath.Join(root, "proc"), 0o700), os.WriteFile(filepath.Join(root, "proc/kallsyms"), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		root string
		err  error
		can  bool
	}{
		{without, nil, true},
		{with, unix.EPERM, true},
		{with, unix.ENOSYS, true},
		{without, unix.EPERM, false},
		{without, unix.ENOSYS, false},
		{t.TempDir(), unix.EPERM, false},
		{with, unix.EINVAL, false}, // it was tried
	} {
		why := noEgress(c.root, func() error {
			if c.err == nil {
				return nil
			}
			return fmt.Errorf("load a program: %w", c.err)
		})
		if (why == "") != c.can || !c.can && !strings.Contains(why, c.err.Error()) {
			t.Errorf("%v with %s: %q", c.err, c.root, why)
		}
	}
}

// The running kernel is found to filter where it does: it has the function, and this process the rights to try.
func TestTryFilter(t *testing.T) {
	err := tryFilter()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		t.Skipf("not allowed here: %v", err)
	}
	if has := hasSymbol("/", "__cgroup_bpf_run_filter_skb"); has != (err == nil) {
		t.Errorf("the kernel has the function: %v, and the trial says %v", has, err)
	}
}

// A module whose egress can't be limited doesn't run, privileged or with init lines only either; others do.
func TestEgressIsRefusedNotSkipped(t *testing.T) {
	const why = "it takes no BPF programs for cgroups"
	for _, manifest := range []string{
		"security: {egress_allow: [192.0.2.1]}\nservices:\n- {name: a, start_command: /bin/a}\n",
		"security: {egress_allow: [example.org]}\nservices:\n- {name: a, start_command: /bin/a}\n",
		"security: {egress_allow: [192.0.2.1], privileged: true}\nservices:\n- {name: a, start_command: /bin/a}\n",
		"security: {egress_allow: [192.0.2.1]}\ninit: {start: /bin/a}\n",
	} {
		m := moduleOf(t, "schema_version: 1\nname: m\n"+manifest)
		other := moduleOf(t, "schema_version: 1\nname: other\nservices:\n- {name: a, start_command: /bin/a}\n")
		for _, reason := range []string{"", why} {
			set := MakeAll([]Module{m, other}, Node{Agent: agentPath, Privileged: []string{"m"}, NoEgress: reason})
			if reason == "" {
				if len(set.Refused) != 0 || len(set.Modules) != 2 {
					t.Errorf("%s: %+v", manifest, set)
				}
				continue
			}
			if len(set.Refused) != 1 || len(set.Modules) != 1 || set.Modules[0].Module != "other" {
				t.Errorf("%s: %+v", manifest, set)
				continue
			}
			r := set.Refused[0]
			if fault.KindOf(r.Err) != fault.Refuse || !strings.Contains(r.Reason, "egress_allow: the kernel can't hold services to it: "+why) || r.Hint == "" {
				t.Errorf("%s: %+v", manifest, r)
			}
		}
	}
}
