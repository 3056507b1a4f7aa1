package apply

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/durable/durabletest"
)

// TestAsUser: the user's rights are the thread's alone, and end with it.
func TestAsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root becomes somebody else")
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	who := account{name: "web", uid: 12345, gid: 23456}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				err := asUser(who, func() error {
					if _, err := os.ReadFile(secret); !errors.Is(err, fs.ErrPermission) {
						return errors.Join(errors.New("a file of root's can be read"), err)
					}
					if list, err := unix.Getgroups(); err != nil || !slices.Equal(list, []int{who.gid}) {
						t.Errorf("groups %v, %v", list, err)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
		all.Go(func() {
			for range 200 {
				if _, err := os.ReadFile(secret); err != nil {
					t.Errorf("beside it: %v", err)
				}
			}
		})
	}
	all.Wait()
	if list, err := os.Getgroups(); err != nil || !slices.Equal(list, groups) {
		t.Errorf("the groups are %v, and were %v", list, groups)
	}
	failed := errors.New("it failed")
	if err := asUser(who, func() error { return failed }); !errors.Is(err, failed) {
		t.Error(err)
	}
}

// TestFaultsInEtc: hosts and host name are the old ones or the new ones after a failure or a kill at each step.
func TestFaultsInEtc(t *testing.T) {
	const own = "127.0.0.1 localhost\n"
	scenario := durabletest.Scenario{
		Setup: func(t testing.TB, dir string) {
			b := newBox(t, dir)
			b.write("etc/hosts", own, 0o644)
			b.write("etc/hostname", "old\n", 0o644)
		},
		Run: func(dir string, hook durable.Hook) error {
			m, err := Open(dir, Options{Hook: hook})
			if err != nil {
				return err
			}
			defer m.Close()
			_, hostErr := m.Hostname("new")
			if hostErr != nil {
				return hostErr
			}
			_, err = m.Hosts(nil)
			if err != nil {
				return err
			}
			list, err := parsed("10.0.0.5 db\n")
			if err != nil {
				return err
			}
			_, err = m.Hosts(list)
			return err
		},
		Check: func(t testing.TB, dir, op string, _ error) {
			b := newBoxAt(t, dir)
			merged := own + "# BEGIN powernode: set by the platform; changes between these lines are lost\n10.0.0.5 db\n# END powernode\n"
			name, file := b.read("etc/hostname"), b.read("etc/hosts")
			if name != "new\n" && (op == "" || name != "old\n") || file != merged && (op == "" || file != own) {
				t.Errorf("after a fault at %q: %q, %q", op, name, file)
			}
			m := b.open(Options{})
			_, err := m.Hostname("newer")
			_, hostsErr := m.Hosts(hosts(t, "10.0.0.6 db\n"))
			if err := errors.Join(err, hostsErr); err != nil {
				t.Error(err)
			}
			names, err := os.ReadDir(b.path("etc"))
			if err != nil || len(names) != 3 {
				t.Errorf("left behind: %v, %v", names, err)
			}
		},
	}
	t.Run("ENOSPC", func(t *testing.T) { scenario.FailEach(t, unix.ENOSPC) })
	t.Run("kill", scenario.KillEach)
}
