package e2e

import (
	"debug/elf"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLinkerCacheAtBoot: libraries that are found through a cache only are found after a boot, as after a live change.
func TestLinkerCacheAtBoot(t *testing.T) {
	t.Parallel()
	program, library := linker(t)
	p := platformWith(t, base("1"))
	p.Publish(mod{
		Name: "libs", Version: "1", Programs: map[string][]byte{"usr/sbin/ldconfig": program, "opt/lib/libpowernode.so.1": library},
		Files: map[string]string{"etc/ld.so.conf": "/opt/lib\n", "var/cache/ldconfig/": ""},
	})
	n := p.node("web", "base", "libs")
	for range 2 {
		s := n.boot()
		if !strings.Contains(s.console(), "run ldconfig, in ") {
			t.Errorf("the boot doesn't say so:\n%s", s.console())
		}
		if cache := s.read("/etc/ld.so.cache"); !strings.Contains(cache, "/opt/lib/") {
			t.Errorf("a cache of %d bytes doesn't know the library", len(cache))
		}
		s.exit()
	}
}

// linker returns this machine's ldconfig, which needs no other file, and a library of its architecture.
func linker(t *testing.T) (program, library []byte) {
	t.Helper()
	found, err := filepath.EvalSymlinks("/sbin/ldconfig")
	if err != nil {
		t.Skip("this machine has no ldconfig")
	}
	f, err := elf.Open(found)
	if err != nil {
		t.Skipf("ldconfig is no program: %v", err)
	}
	defer f.Close()
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Skipf("ldconfig needs %v, %v", libraries, err)
	}
	if program, err = os.ReadFile(found); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob("/lib/*-linux-gnu/libz.so.1")
	if err != nil || len(names) == 0 {
		if names, err = filepath.Glob("/lib/*-linux-gnu/libdl.so.2"); err != nil || len(names) == 0 {
			t.Skip("this machine has no library to take")
		}
	}
	if library, err = os.ReadFile(names[0]); err != nil {
		t.Fatal(err)
	}
	return program, library
}
