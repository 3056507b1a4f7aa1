package store

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
)

// TestCollectSparesOthers: objects of a handle at work stay, and so does what records list.
func TestCollectSparesOthers(t *testing.T) {
	dir := t.TempDir()
	a, b := openStore(t, dir), openStore(t, dir)
	x := makeSample("nginx", 0)
	if err := x.put(a); err != nil {
		t.Fatal(err)
	}
	garbage := put(t, a, []byte("garbage"))
	if _, err := b.Collect(t.Context()); fault.KindOf(err) != fault.Retry || !strings.Contains(err.Error(), "locked by process") {
		t.Errorf("collect beside a handle at work: %v", err)
	}
	if !a.HasObject(garbage) {
		t.Error("removed all the same")
	}
	a.Close()
	if done, err := b.Collect(t.Context()); err != nil || done.Objects != 1 {
		t.Errorf("collect: %+v, %v", done, err)
	}
	if b.HasObject(garbage) {
		t.Error("the object is still there")
	}
	checkWhole(t, b)
	// The handle goes on as before.
	y := makeSample("apache", 0)
	if err := y.put(b); err != nil {
		t.Fatal(err)
	}
	if done, err := b.Collect(t.Context()); err != nil || done.Objects != 0 {
		t.Errorf("collect again: %+v, %v", done, err)
	}
	put(t, b, []byte("more"))
	b.naming.waitAll()
	c := openStore(t, dir)
	if _, err := c.Collect(t.Context()); fault.KindOf(err) != fault.Retry {
		t.Errorf("collect beside a handle that has collected: %v", err)
	}
}

// TestRecoveryLeavesOthersAlone: Open doesn't take the marker of a handle at work for a crash.
func TestRecoveryLeavesOthersAlone(t *testing.T) {
	dir := t.TempDir()
	a := openStore(t, dir)
	d := put(t, a, []byte("at work"))
	a.naming.waitAll()
	b := openStore(t, dir)
	if b.Recovered() != (Recovery{}) || len(files(t, a.unsynced.Path())) != 1 {
		t.Errorf("recovered %+v", b.Recovered())
	}
	// The handle ends without a sync, as in a crash; torn objects go.
	torn := put(t, a, []byte("torn by a power cut"))
	damage(t, a, torn, []byte("torn by a Power cut"))
	a.Close()
	c := openStore(t, dir)
	if r := c.Recovered(); r != (Recovery{Checked: 2, Removed: 1}) {
		t.Errorf("recovered %+v", r)
	}
	if !c.HasObject(d) || c.HasObject(torn) {
		t.Errorf("whole object %v, torn object %v", c.HasObject(d), c.HasObject(torn))
	}
}

func TestPartial(t *testing.T) {
	s := openStore(t, t.TempDir())
	blob := content("blob", 50_000)
	digest := "sha256:" + sha256Hex(blob)
	p, err := s.Partial(digest)
	if err != nil {
		t.Fatal(err)
	}
	if p.Size() != 0 {
		t.Errorf("%d bytes at first", p.Size())
	}
	if _, err := s.Partial(digest); fault.KindOf(err) != fault.Retry {
		t.Errorf("a second one at the same time: %v", err)
	}
	if other, err := s.Partial("sha256:" + sha256Hex(nil)); err != nil {
		t.Error(err)
	} else if err := other.Drop(); err != nil {
		t.Error(err)
	}
	if n, err := io.Copy(p, bytes.NewReader(blob[:30_000])); n != 30_000 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	// A program that is just being started has a copy of the file until its exec: the lock isn't its.
	forked, err := unix.Dup(int(p.file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(forked)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}

	if p, err = s.Partial(digest); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if n, err := p.WriteTo(&got); n != 30_000 || p.Size() != n || err != nil {
		t.Errorf("%d bytes, size %d, %v", n, p.Size(), err)
	}
	if _, err := p.Write(blob[30_000:]); err != nil {
		t.Fatal(err)
	}
	tail := make([]byte, 30_000)
	if n, err := p.ReadAt(tail, 25_000); n != 25_000 || !errors.Is(err, io.EOF) || !bytes.Equal(tail[:n], blob[25_000:]) {
		t.Errorf("%d, %v", n, err)
	}
	if err := p.Reset(); err != nil || p.Size() != 0 {
		t.Errorf("size %d, %v", p.Size(), err)
	}
	if _, err := p.Write(blob); err != nil || p.Size() != int64(len(blob)) {
		t.Errorf("size %d, %v", p.Size(), err)
	}
	if err := p.Drop(); err != nil {
		t.Fatal(err)
	}
	if names := files(t, s.partial.Path()); len(names) > 0 {
		t.Errorf("left behind: %q", names)
	}
}

func TestPartialRefuses(t *testing.T) {
	s := openStore(t, t.TempDir())
	digest := "sha256:" + sha256Hex(nil)
	for _, bad := range []string{"", "sha256:", digest[1:], digest + "0", strings.ToUpper(digest), "sha256:../" + digest[10:]} {
		if _, err := s.Partial(bad); fault.KindOf(err) != fault.Refuse {
			t.Errorf("%q: %v", bad, err)
		}
	}
	name := filepath.Join(s.partial.Path(), digest[7:])
	for how, err := range map[string]error{"a symlink": os.Symlink("/etc/passwd", name)} {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Partial(digest); err == nil {
			t.Errorf("opened %s", how)
		}
	}
	if err := errors.Join(os.Remove(name), os.Mkdir(name, 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Partial(digest); err == nil {
		t.Error("opened a directory")
	}
}
