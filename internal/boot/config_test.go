package boot

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
)

func TestConfigIsFilled(t *testing.T) {
	c := Config{Persist: "some/where", Trust: "/etc/trust.yaml"}
	if err := c.fill(); err != nil {
		t.Fatal(err)
	}
	if !filepath.IsAbs(c.Persist) || len(c.Init) != 1 || c.Init[0] != "/sbin/init" || c.Console == nil || c.Now == nil || c.Health != ByService || c.mode() != Machine {
		t.Errorf("config %+v", c)
	}
	// What nobody looks at takes all that it is told.
	d := c.Progress("x", 1)
	d.Add(1)
	d.Done(nil)
	namespace := Config{Namespace: true, Trust: "/x"}
	if err := namespace.fill(); err != nil || namespace.Persist != PersistInRoot || namespace.Health != AtHandOver || namespace.mode() != Namespace {
		t.Errorf("config %+v, %v", namespace, err)
	}
	sysroot := Config{Sysroot: "x", Trust: "/x"}
	if err := sysroot.fill(); err != nil || !filepath.IsAbs(sysroot.Sysroot) || sysroot.Persist != "" || sysroot.mode() != Sysroot {
		t.Errorf("config %+v, %v", sysroot, err)
	}
	for _, bad := range []Config{{}, {Persist: "/x"}, {Trust: "/x", Namespace: true, Sysroot: "/y"}, {Trust: "/x", Health: "good"}} {
		if err := bad.fill(); fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Input || fault.HintOf(err) == "" {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// TestRunChangesNothing where it may not boot: the tests are nobody's first process.
func TestRunChangesNothing(t *testing.T) {
	persist := t.TempDir()
	for _, namespace := range []bool{false, true} {
		err := Run(t.Context(), Config{Persist: persist, Trust: filepath.Join(persist, "trust.yaml"), Namespace: namespace})
		var stage *StageError
		if fault.KindOf(err) != fault.Refuse || errors.As(err, &stage) || !strings.Contains(err.Error(), "first process") {
			t.Errorf("namespace %t: %v", namespace, err)
		}
	}
	if left, err := os.ReadDir(persist); len(left) != 0 || err != nil {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestPersistMustBeThere(t *testing.T) {
	dir := t.TempDir()
	if err := checkPersist(dir); err != nil {
		t.Error(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "missing"), file} {
		err := checkPersist(path)
		if fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Mount || !strings.Contains(err.Error(), path) || !strings.Contains(fault.HintOf(err), "--persist") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestAPIMounts: namespaces of an ordinary system get a /proc and a /run of their own, and keep
// the system's devices.
func TestAPIMounts(t *testing.T) {
	paths := func(namespace bool) string {
		var list []string
		for _, m := range apiMounts(namespace) {
			list = append(list, m.path+" "+m.fsType)
		}
		return strings.Join(list, ", ")
	}
	if got := paths(true); got != "/proc proc, /run tmpfs" {
		t.Errorf("in namespaces: %s", got)
	}
	if got := paths(false); got != "/proc proc, /sys sysfs, /dev devtmpfs, /run tmpfs" {
		t.Errorf("in an initramfs: %s", got)
	}
}
