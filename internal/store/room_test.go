package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

func TestRoom(t *testing.T) {
	s, err := Open(smallDisk(t, "size=4m,nr_inodes=200"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before, err := s.Room()
	if err != nil || before.TotalBytes != 4<<20 || before.TotalFiles != 200 || before.AvailableBytes < 3<<20 {
		t.Fatalf("%+v, %v", before, err)
	}
	put(t, s, content("a", 1<<20))
	s.naming.waitAll()
	after, err := s.Room()
	if err != nil || before.AvailableBytes-after.AvailableBytes < 1<<20 || after.FreeFiles >= before.FreeFiles {
		t.Errorf("%+v, then %+v, %v", before, after, err)
	}
}

// TestCollectedBytes: what is reported is what the file system has back.
func TestCollectedBytes(t *testing.T) {
	s, err := Open(smallDisk(t, "size=16m"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := crashBase.put(s); err != nil {
		t.Fatal(err)
	}
	for i := range 9 {
		put(t, s, content(fmt.Sprint(i), 1+i*10_000))
	}
	listed, err := s.Reachable()
	if err != nil {
		t.Fatal(err)
	}
	s.naming.waitAll()
	before, _ := s.Room()
	would, err := s.Unlisted(t.Context(), listed)
	if err != nil || would.Objects != 9 {
		t.Errorf("would: %+v, %v", would, err)
	}
	done, err := s.Collect(t.Context())
	if err != nil || done != would {
		t.Errorf("did: %+v, %v", done, err)
	}
	after, _ := s.Room()
	if freed := after.AvailableBytes - before.AvailableBytes; freed != done.Bytes {
		t.Errorf("%d bytes are free again, reported are %d", freed, done.Bytes)
	}
	if s.ModuleBytes(crashBase.module.ManifestDigest) == 0 || s.ModuleBytes("sha256:"+sha256Hex(nil)) != 0 || s.ModuleBytes("x") != 0 {
		t.Error("bytes of records")
	}
}

func TestAlone(t *testing.T) {
	dir := t.TempDir()
	a, b := openStore(t, dir), openStore(t, dir)
	if err := a.Hold(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Alone(); fault.KindOf(err) != fault.Retry {
		t.Errorf("beside one at work: %v", err)
	}
	release, err := a.Alone()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Alone(); err == nil {
		t.Error("alone twice")
	}
	if _, err := b.Alone(); fault.KindOf(err) != fault.Retry {
		t.Errorf("beside one that is alone: %v", err)
	}
	// The handle itself goes on.
	if err := crashBase.put(a); err != nil {
		t.Error(err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	put(t, b, []byte("b is at work"))
	b.naming.waitAll()
	if _, err := a.Alone(); fault.KindOf(err) != fault.Retry {
		t.Errorf("beside one at work, again: %v", err)
	}
	if _, err := a.RemoveUnlisted(t.Context(), nil); err == nil {
		t.Error("removed without having the store alone")
	}
	checkWhole(t, a)
}

func TestPartials(t *testing.T) {
	s := openStore(t, t.TempDir())
	names := make([]string, 3)
	for i := range names {
		names[i] = "sha256:" + sha256Hex([]byte{byte(i)})
		p, err := s.Partial(names[i])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Write(content("blob", 10_000)); err != nil {
			t.Fatal(err)
		}
		if i != 1 { // the second stays in use
			p.Close()
		} else {
			defer p.Close()
		}
		if i != 2 { // the third is of today
			err = os.Chtimes(filepath.Join(s.partial.Path(), names[i][7:]), noon, noon)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(os.WriteFile(filepath.Join(s.partial.Path(), "notes"), nil, 0o600),
		os.Symlink("/etc/passwd", filepath.Join(s.partial.Path(), sha256Hex([]byte("link")))))
	if err != nil {
		t.Fatal(err)
	}
	reader, err := Open(s.Path(), Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for _, st := range []*Store{s, reader} {
		list, err := st.Partials()
		if err != nil || len(list) != 3 || list[0].Bytes < 10_000 || list[0].Modified.IsZero() {
			t.Errorf("%+v, %v", list, err)
		}
	}
	before := noon.Add(time.Hour)
	for i, want := range []bool{true, false, false} {
		if done, err := s.RemovePartial(names[i], before); done != want || err != nil {
			t.Errorf("%d: %v, %v", i, done, err)
		}
	}
	if done, err := s.RemovePartial(names[0], before); done || err != nil {
		t.Errorf("one that is gone: %v, %v", done, err)
	}
	if _, err := s.RemovePartial("sha256:"+sha256Hex([]byte("link")), before); err == nil {
		t.Error("a link")
	}
	if _, err := reader.RemovePartial(names[2], time.Now().Add(time.Hour)); fault.KindOf(err) != fault.Refuse {
		t.Errorf("read only: %v", err)
	}
	if list, _ := s.Partials(); len(list) != 2 {
		t.Errorf("left: %+v", list)
	}
}

func TestModuleObjects(t *testing.T) {
	s := openStore(t, t.TempDir())
	if err := crashBase.put(s); err != nil {
		t.Fatal(err)
	}
	got, err := s.ModuleObjects(crashBase.module)
	want := map[fsverity.Digest]bool{crashBase.module.Seal: true}
	for _, d := range crashBase.module.Objects {
		want[d] = true
	}
	if err != nil || len(got) != len(want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, d := range got {
		if !want[d] {
			t.Errorf("%s isn't the module's", d)
		}
	}
}
