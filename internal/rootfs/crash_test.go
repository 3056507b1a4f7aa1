package rootfs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/durable/durabletest"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/mount/mounttest"
	"github.com/powernode/powernode-agent/internal/store"
)

// crashFiles are the root image of the crash tests, version by version.
func crashFiles(version string) map[string]string {
	return map[string]string{"etc/hostname": "image\n", "etc/version": version, "etc/mode": big, "var/lib/first": strings.Repeat("first ", 10_000), "var/lib/more": "x"}
}

// crashBoot is a boot and its end: a root made of the image that the file "root" names, with all
// that can be on the disk there. What the hook did comes back, whatever Make made of it.
func crashBoot(dir string, hook durable.Hook) error {
	data, err := os.ReadFile(filepath.Join(dir, "root"))
	if err != nil {
		return err
	}
	digest, err := fsverity.ParseDigest(string(data))
	if err != nil {
		return err
	}
	st, err := store.Open(filepath.Join(dir, "state"), store.Options{})
	if err != nil {
		return err
	}
	defer st.Close()
	abilities, err := mount.Probe(st.ObjectsPath())
	if err != nil {
		return err
	}
	level, err := mount.Decide(abilities, mount.Checked)
	if err != nil {
		return err
	}
	run, err := os.MkdirTemp("", "run")
	if err != nil {
		return err
	}
	defer os.RemoveAll(run)
	var seen error
	r, err := Make(context.Background(), Spec{
		At: filepath.Join(run, "newroot"), Scratch: run, Store: st, RootDigest: digest, Level: level, Persist: dir,
		Upper: Upper{Kind: OnPersist}, Etc: Persistent, Derived: isDerived,
		Hook: func(op string) error {
			if hook == nil {
				return nil
			}
			err := hook(op)
			seen = errors.Join(seen, err)
			return err
		},
	})
	if err != nil {
		return err
	}
	r.Unmake()
	return seen
}

// TestCrash fails, kills and cuts the power at each durable write of a boot over another root
// image than the last, and of the first boot: the next boot has everything.
func TestCrash(t *testing.T) {
	mounttest.NeedMounts(t)
	for name, s := range map[string]durabletest.Scenario{"first boot": crashAtFirst(), "next image": crashAtNext()} {
		t.Run(name, func(t *testing.T) {
			t.Run("fail", func(t *testing.T) { s.FailEach(t, unix.ENOSPC) })
			t.Run("power", func(t *testing.T) { s.PowerCutEach(t) })
		})
	}
}

func TestCrashKillsAtFirst(t *testing.T) {
	mounttest.NeedMounts(t)
	afterKill(crashAtFirst()).KillEach(t)
}

func TestCrashKillsAtNext(t *testing.T) {
	mounttest.NeedMounts(t)
	afterKill(crashAtNext()).KillEach(t)
}

func crashAtFirst() durabletest.Scenario {
	return durabletest.Scenario{
		Setup: func(t testing.TB, dir string) {
			n := nodeIn(t, dir)
			root := n.image(crashFiles("1"))
			must(t, n.store.Close())
			must(t, os.WriteFile(filepath.Join(dir, "root"), []byte(root.String()), 0o644))
		},
		Run:   crashBoot,
		Check: func(t testing.TB, dir, op string, err error) { crashCheck(t, dir, "1", nil) },
	}
}

func crashAtNext() durabletest.Scenario {
	return durabletest.Scenario{
		Setup: func(t testing.TB, dir string) {
			n := nodeIn(t, dir)
			one, two := n.image(crashFiles("1")), n.image(crashFiles("2"))
			r := n.boot(one, func(s *Spec) { s.Etc, s.Upper.Kind = Persistent, OnPersist })
			r.write("etc/hostname", "node\n")
			r.write("var/lib/more", "changed")
			must(t, os.Chmod(r.in("etc/mode"), 0o600))
			_, err := r.save()
			must(t, err)
			r.shutDown()
			must(t, n.store.Close())
			must(t, os.WriteFile(filepath.Join(dir, "root"), []byte(two.String()), 0o644))
		},
		Run: crashBoot,
		Check: func(t testing.TB, dir, op string, err error) {
			crashCheck(t, dir, "2", map[string]string{"etc/hostname": "node\n", "var/lib/more": "changed"})
		},
	}
}

// crashCheck boots twice without a fault: everything is there, and stays the same.
func crashCheck(t testing.TB, dir, version string, changed map[string]string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "root"))
	must(t, err)
	root, err := fsverity.ParseDigest(string(data))
	must(t, err)
	n := nodeIn(t, dir)
	defer n.store.Close()
	id := ""
	for range 2 {
		r := n.boot(root, func(s *Spec) { s.Etc, s.Upper.Kind = Persistent, OnPersist })
		for path, want := range crashFiles(version) {
			if w, ok := changed[path]; ok {
				want = w
			}
			if got := r.read(path); got != want {
				t.Errorf("%s reads %.40q, want %.40q; remarks %q", path, got, want, n.remarks)
			}
		}
		if got := r.read("etc/machine-id"); checkMachineID([]byte(got)) != nil || id != "" && got != id {
			t.Errorf("machine ID %q, was %q", got, id)
		} else {
			id = got
		}
		if f := r.Facts(); f.Etc != Persistent || f.Upper != OnPersist || !f.VarKept {
			t.Errorf("facts %+v, remarks %q", f, n.remarks)
		}
		r.shutDown()
	}
}

func afterKill(s durabletest.Scenario) durabletest.Scenario {
	check := s.Check
	s.Check = func(t testing.TB, dir, op string, err error) {
		dropMountsOfKilled(t)
		check(t, dir, op, err)
	}
	return s
}

// dropMountsOfKilled unmounts what a child that was killed left in the namespace that it shared
// with this process.
func dropMountsOfKilled(t testing.TB) {
	t.Helper()
	table, err := mount.ReadTable()
	must(t, err)
	for i := len(table) - 1; i >= 0; i-- {
		if point := table[i].Point; strings.HasPrefix(point, filepath.Join(os.TempDir(), "run")) || strings.Contains(point, "powernode-layer-") {
			must(t, unix.Unmount(point, unix.MNT_DETACH))
		}
	}
}
