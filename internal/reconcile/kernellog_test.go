package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/store"
)

const told = "3,1034,9217832,-;fs-verity (vda, inode 25): FILE CORRUPTED! pos=4096, level=-1, want_hash=sha256:ab, real_hash=sha256:cd\n"

func TestParseCorruption(t *testing.T) {
	for record, want := range map[string]Corruption{
		told: {"vda", 25},
		"3,1,2,-,caller=T1;fs-verity (dm-0, inode 18446744073709551615): FILE CORRUPTED!  Data past EOF is not zeroed\n": {"dm-0", 1<<64 - 1},
		strings.Replace(told, "3,", "11,", 1):                    {}, // a daemon's word, syslog facility 1
		strings.Replace(told, "3,", "x,", 1):                     {},
		strings.Replace(told, "inode 25", "inode 025", 1):        {},
		strings.Replace(told, "inode 25", "inode -1", 1):         {},
		strings.Replace(told, "inode 25", "inode 0", 1):          {},
		strings.Replace(told, "(vda,", "(,", 1):                  {},
		strings.Replace(told, "(vda,", "(a b,", 1):               {},
		strings.Replace(told, "FILE CORRUPTED!", "FILE FINE", 1): {},
		strings.Replace(told, "fs-verity (", "x fs-verity (", 1): {},
		strings.Replace(told, ";", ";\n", 1):                     {},
		"3,1,2,-;fs-verity: Using sha256\n":                      {},
		"6,1,2,-;EXT4-fs (vda): mounted filesystem\n":            {},
		"":                               {},
		";":                              {},
		"3,1,2,-;fs-verity (vda, inode ": {},
	} {
		got, ok := parseCorruption(record)
		if got != want || ok != (want != Corruption{}) {
			t.Errorf("%q: %+v, %t", record, got, ok)
		}
	}
}

func FuzzParseCorruption(f *testing.F) {
	f.Add(told)
	f.Add("3,1,2,-;fs-verity (dm-0, inode 1): FILE CORRUPTED!")
	f.Add("3,1,2,-;fs-verity (")
	f.Fuzz(func(t *testing.T, record string) {
		c, ok := parseCorruption(record)
		if ok != (c != Corruption{}) {
			t.Fatalf("%+v, %t", c, ok)
		}
		if ok && !strings.Contains(record, fmt.Sprintf("fs-verity (%s, inode %d): FILE CORRUPTED!", c.Device, c.Inode)) {
			t.Fatalf("%q gives %+v", record, c)
		}
	})
}

// TestKernelLogOfThisMachine can be read to its end.
func TestKernelLogOfThisMachine(t *testing.T) {
	found, err := Corruptions()
	if err != nil {
		t.Skipf("no kernel log here: %v", err)
	}
	t.Logf("%d corrupted files", len(found))
}

// TestCorruptionsUntilNow: all that there is is read, however long it takes, and nothing is waited for.
func TestCorruptionsUntilNow(t *testing.T) {
	path, _ := kernelLogOf(t)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 2 {
		if _, err := f.WriteString("3,1,2,-;fs-verity (vda, inode 25): FILE CORRUPTED! pos=0, level=0, want_hash=sha256:00, real_hash=sha256:01\n"); err != nil {
			t.Fatal(err)
		}
		found, err := corruptions(path)
		if err != nil || !slices.Equal(found, []Corruption{{Device: "vda", Inode: 25}}) {
			t.Errorf("%v, %v", found, err)
		}
	}
	if found, err := corruptions(path); err != nil || len(found) > 0 {
		t.Errorf("after the end: %v, %v", found, err)
	}
}

// kernelLogOf makes a log that tells of a file, as a FIFO: it gives a record for each read, and none
// when there is none, like the device.
func kernelLogOf(t *testing.T) (path string, tell func(record string)) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "kmsg")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return path, func(record string) {
		if _, err := f.WriteString(record); err != nil {
			t.Error(err)
		}
		// Unlike the device, a FIFO would give two records to one read.
		wait(t, "reader of the log", func() bool {
			left, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCINQ)
			return err != nil || left == 0
		})
	}
}

// inode tells of a file as the kernel would.
func inode(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	device := deviceOf(f)
	if device == "" {
		device = "any"
	}
	return fmt.Sprintf("3,1,2,-;fs-verity (%s, inode %d): FILE CORRUPTED! pos=0, level=-1\n", device, st.Ino)
}

// TestSuspects: of what the kernel's log tells, what is damaged indeed is found, by module and path.
func TestSuspects(t *testing.T) {
	w := newWorld(t)
	w.module("base", "1", map[string]string{"usr/a": long("a"), "usr/b": long("b"), "usr/c": long("c")})
	g := w.boot()
	w.damage(w.object(long("a")))
	w.damage(w.object(long("b")))
	var list []Corruption
	for _, content := range []string{"a", "c"} {
		c, ok := parseCorruption(inode(t, w.object(long(content))))
		if !ok {
			t.Fatal("the test's own record isn't understood")
		}
		list = append(list, c)
	}
	damage, err := Inspector{w.store, g}.Suspects(t.Context(), list)
	if err != nil || len(damage) != 1 || damage[0].Paths[0] != "/usr/a" || damage[0].Modules[0] != "base 1" {
		t.Errorf("%+v, %v", damage, err)
	}
	if damage, err := (Inspector{w.store, g}).Suspects(t.Context(), nil); err != nil || damage != nil {
		t.Errorf("%+v, %v", damage, err)
	}
}

// TestKeeper mends what the kernel's log tells of, and says what it can't mend until it can.
func TestKeeper(t *testing.T) {
	w := newWorld(t)
	w.module("base", "1", map[string]string{"usr/a": long("a"), "usr/b": long("b")})
	g := w.boot()
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	path, tell := kernelLogOf(t)
	nothing, err := ociimage.CreateLayout(filepath.Join(t.TempDir(), "empty"))
	if err != nil {
		t.Fatal(err)
	}
	defer nothing.Close()
	var down atomic.Bool
	down.Store(true)
	k := &Keeper{
		StateDir: w.store.Path(), Generation: func() uint64 { return g.Number }, KernelLog: path, Settle: time.Millisecond, Again: 20 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
		New: func(st *store.Store) (*Reconciler, error) {
			c := Config{Store: st, Verifier: w.verifier, Arch: "amd64", Level: mount.Checked, Platform: w, Source: w.layout}
			if down.Load() {
				c.Source = nothing
			}
			return New(c)
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { k.Run(ctx, func(time.Duration) {}); close(ended) }()
	defer func() { cancel(); <-ended }()

	w.damage(w.object(long("a")))
	tell("6,1,2,-;something else\n")
	tell(inode(t, w.object(long("a"))))
	wait(t, "a remark", func() bool {
		r := strings.Join(k.Remarks(), "\n")
		return strings.Contains(r, "damaged: /usr/a of base 1") && strings.Contains(r, "can't be mended")
	})
	down.Store(false)
	wait(t, "healing", func() bool { return len(k.Remarks()) == 0 })
	st, err := store.Open(w.store.Path(), store.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if damage, err := (Inspector{st, g}).All(t.Context(), true); err != nil || len(damage) != 0 {
		t.Errorf("%+v, %v", damage, err)
	}
}

// TestKeeperIsPatient: the kernel repeats itself at every read of what is damaged; that is no reason to try
// again before the time.
func TestKeeperIsPatient(t *testing.T) {
	w := newWorld(t)
	w.module("base", "1", map[string]string{"usr/a": long("a"), "usr/b": long("b")})
	g := w.boot()
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	path, tell := kernelLogOf(t)
	var attempts atomic.Int32
	k := &Keeper{
		StateDir: w.store.Path(), Generation: func() uint64 { return g.Number }, KernelLog: path, Settle: time.Millisecond, Again: time.Hour, Log: slog.New(slog.DiscardHandler),
		New: func(*store.Store) (*Reconciler, error) {
			attempts.Add(1)
			return nil, errors.New("no registry")
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { k.Run(ctx, func(time.Duration) {}); close(ended) }()
	defer func() { cancel(); <-ended }()

	w.damage(w.object(long("a")))
	tell(inode(t, w.object(long("a"))))
	wait(t, "first attempt", func() bool { return attempts.Load() == 1 && len(k.Remarks()) > 0 })
	for range 3 {
		tell(inode(t, w.object(long("a"))))
		time.Sleep(30 * time.Millisecond) // a keeper without patience would use it
	}
	// Something new is looked at soon.
	tell(inode(t, w.object(long("b"))))
	wait(t, "second attempt", func() bool { return attempts.Load() > 1 })
	if n := attempts.Load(); n != 2 {
		t.Errorf("%d attempts", n)
	}
}

func wait(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no " + what)
		}
	}
}
