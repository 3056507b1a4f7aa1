package retain

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// fakeProc makes a procfs of processes, each with the root digest that its namespace has mounted.
func fakeProc(t *testing.T, processes map[string][2]string) string {
	t.Helper()
	dir := t.TempDir()
	for pid, p := range processes {
		ns := filepath.Join(dir, pid, "ns")
		line := fmt.Sprintf("29 1 0:25 / / rw,relatime shared:1 - overlay powernode:%s rw,lowerdir+=/i,datadir+=/objects,redirect_dir=on,metacopy=on\n", p[1])
		err := errors.Join(os.MkdirAll(ns, 0o700), os.WriteFile(filepath.Join(dir, pid, "mountinfo"), []byte(line), 0o600))
		if p[0] != "" {
			err = errors.Join(err, os.Symlink("mnt:["+p[0]+"]", filepath.Join(ns, "mnt")))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestMountedRoots(t *testing.T) {
	one, two, hidden := root(1), root(2), root(3)
	proc := fakeProc(t, map[string][2]string{
		"1":    {"100", one.String()},
		"77":   {"100", hidden.String()}, // the same namespace isn't read twice
		"80":   {"200", two.String()},
		"81":   {"", hidden.String()}, // on its way out, or another user's
		"self": {"300", hidden.String()},
	})
	got, err := MountedRoots(proc)
	if err != nil || len(got) != 2 {
		t.Errorf("%v, %v", got, err)
	}
	if _, ok := got[two]; !ok {
		t.Errorf("the root of a service's namespace isn't in %v", got)
	}
	if err := os.Remove(filepath.Join(proc, "80", "mountinfo")); err != nil {
		t.Fatal(err)
	}
	if got, err := MountedRoots(proc); err != nil || len(got) != 1 {
		t.Errorf("a process that ended: %v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(proc, "1", "mountinfo"), []byte("rubbish\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := MountedRoots(proc); err == nil {
		t.Errorf("a table that can't be read: %v", got)
	}
	for _, proc := range []string{t.TempDir(), "/nonexistent"} {
		if got, err := MountedRoots(proc); err == nil {
			t.Errorf("%s: %v", proc, got)
		}
	}
	if _, err := MountedRoots("/proc"); err != nil {
		t.Errorf("of this machine: %v", err)
	}
}
