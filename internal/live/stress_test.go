package live

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/rootfs"
)

// cycles is how often the stress test attaches and detaches a module.
const cycles = 200

// pause is between two rounds of a program: sixteen of them share two processors with the change itself.
const pause = 200 * time.Microsecond

// stress are programs that use the root while it changes, each in a loop of its own.
type stress struct {
	*node
	stop    chan struct{}
	running sync.WaitGroup
	// loops counts the rounds of each, and failures what went wrong, by the name of the program.
	mu       sync.Mutex
	loops    map[string]*atomic.Int64
	failures map[string][]string
}

// loop runs a program until the end, which fails whenever it returns an error.
func (s *stress) loop(name string, round func(n int) error) {
	count := new(atomic.Int64)
	s.loops[name] = count
	s.running.Go(func() {
		wait := pause
		for n := 0; ; n++ {
			time.Sleep(wait)
			begun := time.Now()
			select {
			case <-s.stop:
				return
			default:
			}
			if err := round(n); err != nil {
				s.mu.Lock()
				s.failures[name] = append(s.failures[name], fmt.Sprintf("round %d: %v", n, err))
				s.mu.Unlock()
			}
			count.Add(1)
			if runtime.NumCPU() == 1 {
				// An emulated one, which the change has to get as much of as all of these together.
				wait = max(pause, 16*time.Since(begun))
			}
		}
	})
}

func (s *stress) end() {
	s.Helper()
	close(s.stop)
	s.running.Wait()
	for name, f := range s.failures {
		s.Errorf("%s: %d of %d rounds failed: %s", name, len(f), s.loops[name].Load(), strings.Join(f[:min(len(f), 4)], "\n\t"))
	}
	rounds := make([]string, 0, len(s.loops))
	for name, count := range s.loops {
		rounds = append(rounds, fmt.Sprintf("%s %d", name, count.Load()))
		if count.Load() == 0 {
			s.Errorf("%s never came round", name)
		}
	}
	slices.Sort(rounds)
	s.Logf("rounds: %s", strings.Join(rounds, ", "))
}

func stressFiles(version string) map[string]string {
	files := map[string]string{
		"usr/bin/tool": "#!/bin/sh\necho " + version + "\n", "usr/lib/version": version, "usr/lib/big": strings.Repeat(version, 10000),
		"usr/only-" + version: version, "etc/version": version, "etc/conf.d/main": version, "opt/app-" + version + "/version": version, "bin": "-> usr/bin",
		"home/keep": "the same",
	}
	for i := range 300 {
		files[fmt.Sprintf("usr/share/%02d/%03d-%s", i/20, i, version)] = version
	}
	return files
}

func TestStress(t *testing.T) {
	for name, change := range map[string]func(*rootfs.Spec){
		"memory": nil,
		"disk":   func(s *rootfs.Spec) { s.Upper.Kind, s.Etc = rootfs.OnPersist, rootfs.Persistent },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			a, b := n.files(stressFiles("a")), n.files(stressFiles("b"))
			n.boot(a, change)
			must(t, os.Mkdir(n.in("usr/created"), 0o755))
			must(t, os.Mkdir(n.in("etc/created"), 0o755))
			must(t, os.MkdirAll(n.in("usr/mnt"), 0o755))
			must(t, unix.Mount("sub", n.in("usr/mnt"), "tmpfs", 0, ""))
			n.write("usr/mnt/file", "submount")
			s := &stress{node: n, stop: make(chan struct{}), loops: make(map[string]*atomic.Int64), failures: make(map[string][]string)}
			s.readers()
			finish, finishMore := s.writers(), s.moreWriters()
			current, other := a, b
			var slowest, total Result
			for i := range cycles {
				r, err := Swap(context.Background(), n.spec(current, other))
				if err != nil {
					t.Errorf("cycle %d: %v", i, err)
					break
				}
				must(t, Finish(n.run, nil))
				current, other = other, current
				slowest.Swapped, slowest.Prepared = max(slowest.Swapped, r.Swapped), max(slowest.Prepared, r.Prepared)
				total.Swapped, total.Prepared = total.Swapped+r.Swapped, total.Prepared+r.Prepared
				total.Directories = r.Directories
			}
			s.end()
			finish()
			finishMore()
			state := n.whole(current)
			works, err := filepath.Glob(filepath.Join(filepath.Dir(state.Base.Upper), workPrefix+"*"))
			must(t, err)
			if len(works) > worksMax+1 {
				t.Errorf("%d work directories are left", len(works))
			}
			t.Logf("%d cycles of %v: mean %v prepared, %v swapped; most %v, %v", cycles, total.Directories, total.Prepared/cycles, total.Swapped/cycles, slowest.Prepared, slowest.Swapped)
		})
	}
}

// readers are the programs that only read.
func (s *stress) readers() {
	s.loop("open", func(int) error {
		b, err := os.ReadFile(s.in("usr/lib/version"))
		return valid(string(b), err)
	})
	s.loop("stat", func(int) error {
		for _, path := range []string{"usr", "usr/bin/tool", "etc/conf.d/main", "bin/tool", "usr/share", "opt"} {
			if _, err := os.Stat(s.in(path)); err != nil {
				return err
			}
		}
		return nil
	})
	s.loop("readdir", func(int) error { return s.wholeDir("usr/share/07", 20) })
	s.loop("exec", func(int) error {
		out, err := exec.Command(s.in("usr/bin/tool")).CombinedOutput()
		return valid(strings.TrimSpace(string(out)), err)
	})
	s.loop("mmap", func(int) error { return s.mapped("usr/lib/big") })
	s.loop("tree", func(int) error { return s.oneTree() })
	s.loop("submount", func(int) error {
		b, err := os.ReadFile(s.in("usr/mnt/file"))
		if err == nil && string(b) != "submount" {
			err = fmt.Errorf("the file below the submount reads %q", b)
		}
		return err
	})
}

func valid(version string, err error) error {
	if err == nil && version != "a" && version != "b" {
		err = fmt.Errorf("version %.20q", version)
	}
	return err
}

// wholeDir lists a directory that has as many entries of one version.
func (s *stress) wholeDir(path string, want int) error {
	entries, err := os.ReadDir(s.in(path))
	if err != nil {
		return err
	}
	versions := make(map[string]int)
	for _, e := range entries {
		versions[e.Name()[len(e.Name())-1:]]++
	}
	if len(versions) != 1 || len(entries) != want {
		return fmt.Errorf("%s has entries of versions %v, want %d of one", path, versions, want)
	}
	return nil
}

func (s *stress) mapped(path string) error {
	f, err := os.Open(s.in(path))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	if len(data) != 10000 || len(bytes.Trim(data, string(data[:1]))) != 0 {
		err = fmt.Errorf("mapped %d bytes of more than one version", len(data))
	}
	return errors.Join(err, unix.Munmap(data))
}

// oneTree reads a directory's files by way of the open directory: they are of one version.
func (s *stress) oneTree() error {
	dir, err := os.OpenRoot(s.in("usr"))
	if err != nil {
		return err
	}
	defer dir.Close()
	version, err := dir.ReadFile("lib/version")
	if err != nil {
		return err
	}
	other := map[string]string{"a": "b", "b": "a"}[string(version)]
	if _, err := dir.Stat("only-" + string(version)); err != nil {
		return err
	}
	if _, err := dir.Stat("only-" + other); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("a file of the other version in the tree: %w", err)
	}
	bigFile, err := dir.ReadFile("lib/big")
	if err == nil && len(bytes.Trim(bigFile, string(version))) != 0 {
		err = errors.New("lib/big is of another version")
	}
	return err
}

// writers are the programs that write. The result checks, after the end, that everything that was
// written is there.
func (s *stress) writers() (finish func()) {
	log, err := os.OpenFile(s.in("usr/lib/log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(s, err)
	lines := 0
	s.loop("held log", func(int) error {
		lines++
		_, err := fmt.Fprintf(log, "line %08d\n", lines)
		return err
	})
	reopened := 0
	s.loop("log by path", func(int) error {
		f, err := os.OpenFile(s.in("etc/log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		reopened++
		_, err = fmt.Fprintf(f, "line %08d\n", reopened)
		return errors.Join(err, f.Close())
	})
	made := make([]int, 6)
	for i := range made {
		dir := []string{"usr/created", "etc/created"}[i%2]
		s.loop(fmt.Sprintf("create %d", i), func(n int) error {
			path := s.in(fmt.Sprintf("%s/%d-%06d", dir, i, n))
			made[i]++
			if err := os.WriteFile(path, []byte(path), 0o644); err != nil {
				return err
			}
			b, err := os.ReadFile(path)
			if err == nil && string(b) != path {
				err = fmt.Errorf("%s reads %.20q", path, b)
			}
			if n >= 50 {
				made[i]--
				err = errors.Join(err, os.Remove(s.in(fmt.Sprintf("%s/%d-%06d", dir, i, n-50))))
			}
			return err
		})
	}
	s.loop("replace", func(n int) error {
		temp, name, text := s.in("usr/created/.temp"), s.in("usr/created/replaced"), fmt.Sprint(n)
		if err := errors.Join(os.WriteFile(temp, []byte(text), 0o644), renamed(temp, name)); err != nil {
			return err
		}
		b, err := os.ReadFile(name)
		if err == nil && string(b) != text {
			err = fmt.Errorf("reads %q, want %q", b, text)
		}
		return err
	})
	return func() {
		s.Helper()
		must(s, log.Close())
		s.wantLines("usr/lib/log", lines)
		s.wantLines("etc/log", reopened)
		for _, dir := range []string{"usr/created", "etc/created"} {
			want := 0
			for i, n := range made {
				if i%2 == 0 == (dir == "usr/created") {
					want += n
				}
			}
			names, err := filepath.Glob(s.in(dir + "/[0-9]-*"))
			must(s, err)
			if len(names) != want {
				s.Errorf("%s has %d files, want %d", dir, len(names), want)
			}
		}
	}
}

func (s *stress) wantLines(path string, want int) {
	s.Helper()
	f, err := os.Open(s.in(path))
	must(s, err)
	defer f.Close()
	text, err := io.ReadAll(f)
	must(s, err)
	for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		if line != fmt.Sprintf("line %08d", i+1) {
			s.Errorf("%s: line %d reads %q", path, i+1, line)
			return
		}
	}
	if got := strings.Count(string(text), "\n"); got != want {
		s.Errorf("%s has %d lines, want %d", path, got, want)
	}
}
