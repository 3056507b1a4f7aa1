package durable_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
)

// TestSweepFiles looks at so many names, and leaves directories.
func TestSweepFiles(t *testing.T) {
	path := t.TempDir()
	d, err := durable.OpenDir(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := os.MkdirAll(filepath.Join(path, ".durable-dir", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "other"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	left := func() int {
		t.Helper()
		names, err := d.Names()
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	for i := range 100 {
		if err := os.Symlink("nowhere", filepath.Join(path, ".durable-"+strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.SweepFiles(10); err != nil || left() < 92 {
		t.Errorf("%d are left of 102, %v", left(), err)
	}
	if err := d.SweepFiles(1000); err != nil || left() != 2 {
		t.Errorf("%d are left, %v", left(), err)
	}
}

func TestWriteFileModeAndContent(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, content := range []string{"", "one", strings.Repeat("long", 100_000)} {
		if err := durable.WriteFile(root, "f", []byte(content), 0o644, "f"); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(dir, "f"))
		if err != nil || info.Mode() != 0o644 {
			t.Errorf("mode %v, %v: want 0644 whatever the umask", info.Mode(), err)
		}
		data, err := durable.ReadFile(root, "f", 1<<20)
		if err != nil || string(data) != content {
			t.Errorf("read back %d bytes, %v: want %d", len(data), err, len(content))
		}
	}
	if names := contents(t, dir); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

func TestLabels(t *testing.T) {
	var ops []string
	d, err := durable.OpenDir(t.TempDir(), func(op string) error {
		ops = append(ops, op)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, c := range []struct {
		do   func() error
		want string
	}{
		{func() error { return d.WriteFile("a", nil, 0o600, "x") }, "x:create x:write x:fsync x:link x:rename x:syncdir"},
		{func() error { return d.WriteNew("b", nil, 0o600, "x") }, "x:create x:write x:fsync x:link x:syncdir"},
		{func() error { return d.Exchange("a", "b", "x") }, "x:rename x:syncdir"},
		{func() error { return d.Remove("a", "x") }, "x:remove x:syncdir"},
		{func() error { return d.SyncFS("x") }, "x:syncfs"},
	} {
		ops = nil
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(ops, " "); got != c.want {
			t.Errorf("operations %s, want %s", got, c.want)
		}
	}
}

func TestNamesAreSingleElements(t *testing.T) {
	d := open(t, t.TempDir())
	defer d.Close()
	for _, name := range []string{"", ".", "..", "a/b", "/a", "../a", "a\x00b", strings.Repeat("x", 256)} {
		errs := map[string]error{
			"WriteFile": d.WriteFile(name, nil, 0o600, "x"),
			"WriteNew":  d.WriteNew(name, nil, 0o600, "x"),
			"Rename":    d.Rename("x", name, "x"),
			"Remove":    d.Remove(name, "x"),
		}
		_, errs["Open"] = d.Open(name)
		_, errs["ReadFile"] = d.ReadFile(name, 1)
		_, errs["Sub"] = d.Sub(name)
		_, errs["TryLock"] = d.TryLock(name, durable.Shared)
		for what, err := range errs {
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s of %q: %v", what, name, err)
			}
		}
	}
}

func TestExistingNamesAreKept(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	defer d.Close()
	fill(t, filepath.Join(dir, "a"), "1")
	fill(t, filepath.Join(dir, "b"), "2")
	if err := d.WriteNew("a", []byte("3"), 0o600, "x"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("WriteNew over a file: %v", err)
	}
	if err := d.RenameNew("a", "b", "x"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("RenameNew over a file: %v", err)
	}
	if err := d.Remove("c", "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Remove of nothing: %v", err)
	}
	if got := contents(t, dir); !same(got, map[string]string{"a": "1", "b": "2"}) {
		t.Errorf("changed: %v", got)
	}
}

// TestReadRefuses: a reader is neither led elsewhere nor kept waiting nor flooded.
func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	defer d.Close()
	fill(t, filepath.Join(dir, "long"), "12345")
	fill(t, filepath.Join(dir, "dir"), "/")
	if err := errors.Join(os.Symlink("long", filepath.Join(dir, "link")), os.Symlink("dir", filepath.Join(dir, "dirlink")), unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "fifo", "dir"} {
		if data, err := d.ReadFile(name, 100); err == nil {
			t.Errorf("read %q from %s", data, name)
		}
	}
	if _, err := d.ReadFile("long", 4); !errors.Is(err, durable.ErrTooLarge) {
		t.Errorf("5 bytes where 4 are accepted: %v", err)
	}
	if data, err := d.ReadFile("long", 5); err != nil || string(data) != "12345" {
		t.Errorf("5 bytes where 5 are accepted: %q, %v", data, err)
	}
	for _, name := range []string{"dirlink", "long"} {
		if sub, err := d.Sub(name); err == nil {
			sub.Close()
			t.Errorf("opened %s as a directory", name)
		}
	}
	if _, err := d.ReadFile("missing", 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestJSON(t *testing.T) {
	type doc struct {
		A int `json:"a"`
	}
	d := open(t, t.TempDir())
	defer d.Close()
	if err := d.WriteJSON("f", doc{7}, 0o600, "x"); err != nil {
		t.Fatal(err)
	}
	var got doc
	if err := d.ReadJSON("f", 100, &got); err != nil || got.A != 7 {
		t.Errorf("%v, %v", got, err)
	}
	for _, text := range []string{"", "{", `{"a":1}{}`, `{"a":1} x`, `{"a":1,"b":2}`, `{"a":"1"}`, "\x00"} {
		if err := durable.DecodeJSON([]byte(text), &got); err == nil {
			t.Errorf("accepted %q", text)
		}
	}
	if err := durable.DecodeJSON([]byte(" {\"a\":2}\n\n"), &got); err != nil || got.A != 2 {
		t.Errorf("white space: %v, %v", got, err)
	}
	if err := d.WriteJSON("f", make(chan int), 0o600, "x"); err == nil {
		t.Error("wrote a channel as JSON")
	}
}

func TestMakeDirAndNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b", "c")
	d, err := durable.MakeDir(dir, 0o700, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	for _, name := range []string{"b", "c", "a"} {
		fill(t, filepath.Join(dir, name), "x")
	}
	for range 2 {
		if names, err := d.Names(); err != nil || !slices.Equal(names, []string{"a", "b", "c"}) {
			t.Errorf("Names: %q, %v", names, err)
		}
	}
	if again, err := durable.MakeDir(dir, 0o700, nil); err != nil {
		t.Error(err)
	} else {
		again.Close()
	}
	if d, err := durable.MakeDir(filepath.Join(dir, "a", "x"), 0o700, nil); err == nil {
		d.Close()
		t.Error("made a directory below a file")
	}
}

func TestHalfAWriteOnAFullDisk(t *testing.T) {
	d, err := durable.OpenDir(t.TempDir(), func(op string) error {
		if op == "x:write" {
			return unix.ENOSPC
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var out bytes.Buffer
	if err := d.WriteAll(&out, []byte("123456"), "x"); !errors.Is(err, unix.ENOSPC) || out.String() != "123" {
		t.Errorf("wrote %q, %v", out.String(), err)
	}
}

func TestLinkUnnamed(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	defer d.Close()
	if f, err := d.Temp("..", 0o400, "x"); err == nil {
		f.Close()
		t.Error("made a file outside")
	}
	f, err := d.Temp(".", 0o400, "x")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := d.WriteAll(f, []byte("abc"), "x"); err != nil {
		t.Fatal(err)
	}
	if err := durable.LinkUnnamed(f, d.File(), "missing/name"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("link into a missing directory: %v", err)
	}
	if err := d.Link(f, "name", "x"); err != nil {
		t.Fatal(err)
	}
	if err := d.Link(f, "name", "x"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("link over a file: %v", err)
	}
	if got := contents(t, dir); !same(got, map[string]string{"name": "abc"}) {
		t.Errorf("%v", got)
	}
	if err := d.Link(f, "../name", "x"); err == nil {
		t.Error("linked outside")
	}
}
