package delta

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount/mounttest"
)

// upperDir is a directory in which a test makes entries by hand, marks too.
func upperDir(t testing.TB) string {
	t.Helper()
	mounttest.NeedMounts(t) // the marks need root
	return t.TempDir()
}

func put(t testing.TB, path, content string, marks ...string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	if strings.HasSuffix(path, "/") {
		must(t, os.MkdirAll(path, 0o755))
	} else {
		must(t, os.WriteFile(path, []byte(content), 0o644))
	}
	for i := 0; i < len(marks); i += 2 {
		must(t, unix.Lsetxattr(strings.TrimSuffix(path, "/"), marks[i], []byte(marks[i+1]), 0))
	}
}

func scanDir(t testing.TB, dir string, limits Limits) (*Delta, error) {
	t.Helper()
	f, err := os.Open(dir)
	must(t, err)
	defer f.Close()
	return Scan(t.Context(), f, limits)
}

func TestScanTellsKindsApart(t *testing.T) {
	dir := upperDir(t)
	digest := strings.Repeat("\x42", 32)
	put(t, dir+"/etc/file", "content", markOrigin, "x")
	must(t, os.Link(dir+"/etc/file", dir+"/etc/again"))
	put(t, dir+"/etc/meta", "", markMetacopy, "")
	put(t, dir+"/etc/meta-digest", "", markMetacopy, "\x00\x24\x00\x01"+digest, markRedirect, "/usr/x")
	put(t, dir+"/etc/full", "full", markRedirect, "/usr/x")
	put(t, dir+"/etc/empty", "", markWhiteout, "")
	put(t, dir+"/etc/new\nline/", "", markOpaque, "y")
	put(t, dir+"/etc/xwhiteouts/", "", markOpaque, "x")
	put(t, dir+"/etc/renamed/", "", markRedirect, "old")
	put(t, dir+"/etc/both/", "", markRedirect, "old", markOpaque, "y")
	put(t, dir+"/etc.d/a", "")
	must(t, os.Symlink("target", dir+"/etc/link"))
	must(t, unix.Mknod(dir+"/etc/white", unix.S_IFCHR, 0))
	must(t, unix.Mknod(dir+"/etc/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, unix.Mkfifo(dir+"/etc/fifo", 0o600))
	for _, bad := range []string{"", "\x00\x24\x00", "\x01\x24\x00\x01" + digest, "\x00\x24\x00\x02" + digest, "\x00\x24\x00\x01" + digest + "x", "\x00\x04\x00\x01"}[1:] {
		put(t, fmt.Sprintf("%s/bad/meta-%x", dir, bad[:min(len(bad), 4)]+fmt.Sprint(len(bad))), "", markMetacopy, bad)
	}
	for i, bad := range []string{"a/b", "/a//b", "/", "..", "/a/../b", strings.Repeat("x", 256)} {
		put(t, fmt.Sprintf("%s/bad/dir-%d/in", dir, i), "in")
		must(t, unix.Lsetxattr(fmt.Sprintf("%s/bad/dir-%d", dir, i), markRedirect, []byte(bad), 0))
	}
	d, err := scanDir(t, dir, Limits{})
	must(t, err)
	got := make([]string, 0, len(d.Entries))
	for _, e := range d.Entries {
		text := fmt.Sprintf("%q %s", e.Path, e.Kind)
		if e.Redirect != "" {
			text += " from " + e.Redirect
		}
		if !e.Digest.IsZero() {
			text += fmt.Sprintf(" %.4s", e.Digest.String())
		}
		got = append(got, text)
	}
	want := []string{
		`"/bad" directory`, `"/etc" directory`, `"/etc.d" directory`, `"/etc.d/a" file`,
		`"/etc/again" file`, `"/etc/both" opaque directory`, `"/etc/empty" whiteout`, `"/etc/fifo" device`, `"/etc/file" file`,
		`"/etc/full" file`, `"/etc/link" symlink`, `"/etc/meta" metacopy`, `"/etc/meta-digest" metacopy from /usr/x 4242`,
		`"/etc/new\nline" opaque directory`, `"/etc/null" device`, `"/etc/renamed" renamed directory from old`, `"/etc/white" whiteout`,
		`"/etc/xwhiteouts" directory`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("entries\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(d.Skipped) != 11 {
		t.Errorf("skipped %q, want 11 damaged ones", d.Skipped)
	}
	totals := Totals{Files: 4, Metacopies: 2, Directories: 7, Opaque: 2, Renamed: 1, Symlinks: 1, Devices: 2, Whiteouts: 2, Bytes: 11}
	if d.Totals != totals || d.Totals.Changes() != 14 {
		t.Errorf("totals %+v, want %+v", d.Totals, totals)
	}
	for path, changed := range map[string]bool{
		"/etc/file": true, "/etc/none": false, "/etc/both/in/it": true, "/etc/renamed/x": true, "/usr/x": false, "/etc": true, "/bad/x": false, "/etc/white/x": true,
	} {
		if d.Changed(path) != changed {
			t.Errorf("Changed(%s) is %v", path, !changed)
		}
	}
	if p := Settle(d, dirTree(), dirTree(), func(path string) bool { return strings.HasPrefix(path, "/bad/dir") }); len(p.Unsettled) != 5 {
		t.Errorf("unsettled %v, want the damaged ones that aren't dropped", p.Unsettled)
	}
}

func TestScanIsBounded(t *testing.T) {
	dir := upperDir(t)
	for i := range 50 {
		put(t, fmt.Sprintf("%s/d/f%d", dir, i), "x")
	}
	put(t, dir+"/"+strings.Repeat("a/", 30)+"deep", "x")
	if _, err := scanDir(t, dir, Limits{Entries: 40}); fault.KindOf(err) != fault.Refuse || fault.HintOf(err) == "" {
		t.Errorf("more than the limit: %v", err)
	}
	d, err := scanDir(t, dir, Limits{Depth: 10})
	must(t, err)
	if len(d.Skipped) != 1 || d.Skipped[0].Path != strings.Repeat("/a", 10) {
		t.Errorf("skipped %v", d.Skipped)
	}
	d, err = scanDir(t, dir, Limits{})
	if err != nil || len(d.Skipped) != 0 || d.Totals.Files != 51 {
		t.Errorf("%v, %v", d.Totals, err)
	}
	f, err := os.Open(dir)
	must(t, err)
	defer f.Close()
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if _, err := Scan(stopped, f, Limits{}); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
	size, err := SizeOf(t.Context(), f, 0)
	if err != nil || size.Files != 51 || size.Bytes != 51 || size.More {
		t.Errorf("size %+v, %v", size, err)
	}
	size, err = SizeOf(t.Context(), f, 20)
	if err != nil || !size.More || size.Files > 20 {
		t.Errorf("size up to a limit %+v, %v", size, err)
	}
}

// TestScanStaysIn follows no link and enters no other mount.
func TestScanStaysIn(t *testing.T) {
	dir := upperDir(t)
	must(t, os.Symlink("/etc", dir+"/link"))
	put(t, dir+"/mnt/covered", "x")
	must(t, unix.Mount("tmpfs", dir+"/mnt", "tmpfs", 0, ""))
	t.Cleanup(func() { _ = unix.Unmount(dir+"/mnt", unix.MNT_DETACH) })
	put(t, dir+"/mnt/other", "x")
	d, err := scanDir(t, dir, Limits{})
	must(t, err)
	if len(d.Entries) != 2 || len(d.Skipped) != 1 || d.Skipped[0].Path != "/mnt" {
		t.Errorf("entries %v, skipped %v", d.Entries, d.Skipped)
	}
}

// TestScanWhileThingsGo scans while a user makes and removes files and directories.
func TestScanWhileThingsGo(t *testing.T) {
	dir := upperDir(t)
	put(t, dir+"/stays", "x")
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		var err error
		for i := 0; ctx.Err() == nil && err == nil; i++ {
			at := fmt.Sprintf("%s/d%d", dir, i%7)
			err = errors.Join(os.MkdirAll(at+"/sub/sub", 0o755), os.WriteFile(at+"/sub/f", nil, 0o600), os.RemoveAll(at), os.Symlink("/etc", at), os.Remove(at))
		}
		done <- err
	}()
	for range 100 {
		d, err := scanDir(t, dir, Limits{})
		if err != nil {
			t.Errorf("scan: %v", err)
			break
		}
		if _, ok := d.Entry("/stays"); !ok {
			t.Error("what stays is missing")
		}
	}
	stop()
	must(t, <-done)
}

func FuzzParseMetacopy(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("\x00\x04\x00\x00"))
	f.Add([]byte("\x00\x24\x00\x01" + strings.Repeat("d", 32)))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseMetacopy(b)
		if err != nil && !d.IsZero() || err == nil && !d.IsZero() && string(b[4:]) != string(d[:]) {
			t.Errorf("%x: %s, %v", b, d, err)
		}
	})
}

func FuzzParseRedirect(f *testing.F) {
	for _, s := range []string{"", "a", "/a/b", "/", "//", "a/b", "/a/../b", "."} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseRedirect(b)
		if err != nil {
			return
		}
		if s != string(b) || filepath.Clean("/"+s) != "/"+strings.TrimPrefix(s, "/") || strings.Contains(s, "\x00") {
			t.Errorf("%q is taken for a redirect", b)
		}
		if !strings.HasPrefix(s, "/") && strings.Contains(s, "/") {
			t.Errorf("%q is taken for a name", b)
		}
	})
}
