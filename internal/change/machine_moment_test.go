package change

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/rootfs"
	"github.com/powernode/powernode-agent/internal/store"
)

// twoTops is a root of which /opt and /usr change: files of one length, directories with three files, of which one is only in the one
// root, and one only in the other, and a file whose length says what it was made over.
func twoTops(t *testing.T, kind rootfs.UpperKind) (m *mounted, old, next store.Generation) {
	t.Helper()
	m = newMounted(t)
	m.upper.Kind = kind
	one, two := strings.Repeat("1", 10000), strings.Repeat("2", 10000)
	files := func(content, only string) map[string]string {
		all := make(map[string]string)
		for _, top := range []string{"opt/", "srv/", "usr/"} {
			all[top+"app"], all[top+"dir/f"], all[top+"dir/only"+only], all[top+"dir/same"] = content, content, content, "same"
			all[top+"proves"] = content + only
		}
		return all
	}
	old, next = m.generation(files(one, "old"), nil), m.generation(files(two, "in the new one"), nil)
	m.boot(old, rootfs.Ephemeral)
	return m, old, next
}

// change does to what is in a top-level directory what makes it refer to the root that is beneath.
func (m *mounted) change(top string) {
	m.Helper()
	m.must(errors.Join(
		os.Rename(m.in(top+"/dir"), m.in(top+"/moved")), os.Chmod(m.in(top+"/app"), 0o711), os.Chmod(m.in(top+"/proves"), 0o711),
	))
}

// isOf checks that it has the content of one root, and nothing of the other: "1" of the old one, "2" of the new one. proven is what shows its origin itself.
func (m *mounted) isOf(top, v, proven string) {
	m.Helper()
	only := map[string]string{"1": "old", "2": "in the new one"}
	m.reads(top+"/moved/f", strings.Repeat(v, 10000))
	m.reads(top+"/moved/same", "same")
	m.reads(top+"/moved/only"+only[v], strings.Repeat(v, 10000))
	entries, err := os.ReadDir(m.in(top + "/moved"))
	if err != nil || len(entries) < 3 || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), "only") && e.Name() != "only"+only[v] }) {
		m.Errorf("%s/moved: %v, %v", top, entries, err)
	}
	m.reads(top+"/proves", strings.Repeat(proven, 10000)+only[proven])
	m.mode(top+"/app", 0o711)
	if m.level == mount.Enforced {
		v = proven // by its digest
	}
	m.reads(top+"/app", strings.Repeat(v, 10000))
}

// killedAt runs do in a goroutine, which ends at a label; do is for what comes before.
func (m *mounted) killedAt(at string, s Step, before func(label string)) {
	m.Helper()
	machine, done, died := m.machine(), make(chan error, 1), false
	machine.Place.Hook = func(label string) error {
		before(label)
		if label == at {
			died = true
			runtime.Goexit()
		}
		return nil
	}
	go func() {
		defer close(done)
		_, err := machine.Swap(m.Context(), s, Findings{})
		done <- err
	}()
	err := <-done
	if !died {
		m.Fatalf("it isn't killed at %s: %v", at, err)
	}
}

func (m *mounted) recovers(to store.Generation) Recovered {
	m.Helper()
	r, ok, err := m.machine().Recover(m.Context(), to.Number)
	if err != nil || !ok || r.Forward || r.Generation != to.Number {
		m.Fatalf("%+v, %t, %v", r, ok, err)
	}
	return r
}

// TestRecoverKeepsWhatWasChangedOverTheOldRoot: whenever a swap is killed, what was changed over the old root, before the kill or between that
// and Recover, is as it is: nothing gets the content of a root that never ran there.
func TestRecoverKeepsWhatWasChangedOverTheOldRoot(t *testing.T) {
	for _, at := range []string{"live-scratch:mount", "live-union:mount", "live-opt:attach", "live-usr:attach", "live-layer:check", "live-done:rename"} {
		for _, when := range []string{"before", "between"} {
			if when == "between" && (at == "live-layer:check" || at == "live-done:rename") {
				continue
			}
			t.Run(when+" "+at, func(t *testing.T) {
				m, old, next := twoTops(t, "")
				did := false
				m.killedAt(at, m.step(old, next), func(label string) {
					if last := label == at || label == "live-usr:attach"; when == "before" && last && !did {
						did = true
						m.change("usr")
					}
				})
				if when == "between" {
					m.change("usr")
					m.isOf("usr", "1", "1")
				}
				r := m.recovers(old)
				for _, remark := range r.Remarks {
					if !inTheMoment(remark) {
						t.Error(remark)
					}
				}
				m.isOf("usr", "1", "1")
			})
		}
	}
}

// TestRecoverKeepsWhatWasChangedOverTheNewRoot: where the swap had come to its end, by its journal, all that was changed since is of the new root.
func TestRecoverKeepsWhatWasChangedOverTheNewRoot(t *testing.T) {
	m, old, next := twoTops(t, "")
	_, err := m.machine().Swap(t.Context(), m.step(old, next), Findings{})
	m.must(err)
	m.change("usr")
	m.change("opt")
	if r := m.recovers(old); len(r.Remarks) > 0 {
		t.Errorf("%q", r.Remarks)
	}
	m.isOf("usr", "2", "2")
	m.isOf("opt", "2", "2")
}

// TestOwnWayBack: a swap that fails by itself gives nothing that was changed over the old root the new one's content.
func TestOwnWayBack(t *testing.T) {
	for _, at := range []string{"live-opt:attach", "live-usr:attach"} {
		t.Run(at, func(t *testing.T) {
			m, old, next := twoTops(t, "")
			machine, n := m.machine(), 0
			machine.Place.Hook = func(label string) error {
				if label == at && n == 0 {
					n = 1
					// /opt is new by the time of the latter: what proves nothing there gets the old root's, since that comes.
					m.change("opt")
					m.change("usr")
				}
				if label == "live-usr:attach" && n == 1 {
					n = 2
					return errors.New("it fails")
				}
				return nil
			}
			remarks, err := machine.Swap(t.Context(), m.step(old, next), Findings{})
			if err == nil || n != 2 {
				t.Fatalf("%d, %v", n, err)
			}
			m.isOf("usr", "1", "1")
			m.isOf("opt", "1", map[bool]string{true: "1", false: "2"}[at == "live-opt:attach"])
			if len(remarks) != 1 || !inTheMoment(remarks[0]) || !strings.Contains(remarks[0], "/opt/moved") {
				t.Errorf("%q", remarks)
			}
		})
	}
}

// TestOverTheNewDirectoryWhileAnotherIsReplaced: /opt is new by the time of the change, /usr isn't: which root it was made over can't be told, so
// that the swap goes back, and says so.
func TestOverTheNewDirectoryWhileAnotherIsReplaced(t *testing.T) {
	m, old, next := twoTops(t, "")
	machine := m.machine()
	q := &quick{at: "live-usr:attach", do: func() { m.change("opt") }}
	machine.Place.Hook = q.hook
	remarks, err := machine.Swap(t.Context(), m.step(old, next), Findings{})
	if err != nil || len(remarks) != 1 || !inTheMoment(remarks[0]) || !strings.Contains(remarks[0], "/opt/moved") {
		t.Errorf("%q, %v", remarks, err)
	}
	m.isOf("opt", "1", "2")
	m.reads("usr/app", strings.Repeat("2", 10000))
}

// TestChangedWhileItGoesBack: what is changed over the new root after it was looked through is the new root's, although the swap goes back then.
func TestChangedWhileItGoesBack(t *testing.T) {
	m, old, next := twoTops(t, "")
	machine, checked := m.machine(), false
	first := &quick{at: "live-usr:attach", do: func() { m.change("opt") }}
	second := &quick{at: "live-scratch:unmount", do: func() { m.change("usr") }}
	machine.Place.Hook = func(label string) error {
		checked = checked || label == "live-layer:check"
		if checked {
			return second.hook(label)
		}
		return first.hook(label)
	}
	remarks, err := machine.Swap(t.Context(), m.step(old, next), Findings{})
	if err != nil || len(remarks) != 1 || !inTheMoment(remarks[0]) || strings.Contains(remarks[0], "/usr") {
		t.Errorf("%q, %v", remarks, err)
	}
	m.isOf("opt", "1", "2")
	m.isOf("usr", "2", "2")
}

// TestRightAfterTheSwap: what is changed over the new root directly after it was looked through keeps its meaning, however near to the swap that
// is; so does what was changed over the old root, and used over the new one before anybody looked.
func TestRightAfterTheSwap(t *testing.T) {
	t.Run("changed", func(t *testing.T) {
		m, old, next := twoTops(t, "")
		machine := m.machine()
		q := &quick{at: "live-done:rename", do: func() { m.change("usr") }}
		machine.Place.Hook = q.hook
		s := m.step(old, next)
		if remarks, err := machine.Swap(t.Context(), s, Findings{}); err != nil || len(remarks) > 0 {
			t.Errorf("%q, %v", remarks, err)
		}
		m.isOf("usr", "2", "2")
		if remarks, err := machine.Undo(t.Context(), s, Findings{}); err != nil || len(remarks) > 0 {
			t.Errorf("%q, %v", remarks, err)
		}
		m.isOf("usr", "2", "2")
	})
	t.Run("used", func(t *testing.T) {
		m, old, next := twoTops(t, "")
		machine := m.machine()
		first := &quick{at: "live-usr:attach", do: func() { m.change("usr") }}
		second := &quick{at: "live-layer:check", do: func() {
			time.Sleep(20 * time.Millisecond)
			m.must(os.WriteFile(m.in("usr/moved/mine"), []byte("mine"), 0o600))
		}}
		machine.Place.Hook = func(label string) error { return errors.Join(first.hook(label), second.hook(label)) }
		_, err := machine.Swap(t.Context(), m.step(old, next), Findings{})
		m.must(err)
		m.isOf("usr", "1", "1")
		m.reads("usr/moved/mine", "mine")
	})
}

// TestAFIFOInTheMoment: a change doesn't wait for who reads a FIFO that took the place of a file that is mended.
func TestAFIFOInTheMoment(t *testing.T) {
	m, old, next := twoTops(t, "")
	machine := m.machine()
	change := &quick{at: "live-usr:attach", do: func() {
		m.must(errors.Join(os.Chmod(m.in("usr/proves"), 0o711), os.Chmod(m.in("opt/proves"), 0o711)))
	}}
	fifo := &quick{at: "settle-mend:content", do: func() {
		m.must(errors.Join(os.Remove(m.in("usr/proves")), unix.Mkfifo(m.in("usr/proves"), 0o600)))
	}}
	machine.Place.Hook = func(label string) error { return errors.Join(change.hook(label), fifo.hook(label)) }
	if remarks, err := machine.Swap(t.Context(), m.step(old, next), Findings{}); err != nil || len(remarks) > 0 {
		t.Errorf("%q, %v", remarks, err)
	}
	if info, err := os.Lstat(m.in("usr/proves")); err != nil || info.Mode().Type() != os.ModeNamedPipe {
		t.Errorf("%v, %v", info, err)
	}
}

// TestTriedThreeTimes: somebody who renames a directory in the moment of each try has the change refused, with the old root in place.
func TestTriedThreeTimes(t *testing.T) {
	m, old, next := twoTops(t, "")
	machine, n := m.machine(), 0
	machine.Place.Hook = func(label string) error {
		if label != "live-layer:check" {
			return nil
		}
		// What was taken for the old root's once is settled before the next try.
		top := []string{"usr/", "opt/", "srv/"}[n]
		n++
		return os.Rename(m.in(top+"dir"), m.in(top+"moved"))
	}
	_, err := machine.Swap(t.Context(), m.step(old, next), Findings{})
	if n != swapTries || !errors.Is(err, errMeanwhile) || !strings.Contains(err.Error(), "/srv/moved") {
		t.Errorf("tried %d times: %v", n, err)
	}
	for _, top := range []string{"usr", "opt", "srv"} {
		m.reads(top+"/moved/f", strings.Repeat("1", 10000))
		m.reads(top+"/app", strings.Repeat("1", 10000))
	}
}

// TestTheLayerIsTheNewRootsOnlyAfterTheMend: a power cut between the swap and the end of the mend leaves a record of the old root.
func TestTheLayerIsTheNewRootsOnlyAfterTheMend(t *testing.T) {
	m, old, next := twoTops(t, rootfs.OnPersist)
	machine := m.machine()
	var labels []string
	machine.Place.Hook = func(label string) error {
		if label == "live-usr:attach" {
			m.must(os.Chmod(m.in("usr/proves"), 0o711))
		}
		labels = append(labels, label)
		return nil
	}
	_, err := machine.Swap(t.Context(), m.step(old, next), Findings{})
	m.must(err)
	at := func(prefix string, from int) int {
		i := slices.IndexFunc(labels[from:], func(l string) bool { return strings.HasPrefix(l, prefix) })
		if i < 0 {
			t.Fatalf("nothing begins with %s: %q", prefix, labels[from:])
		}
		return from + i
	}
	synced := at("settle:syncfs", at("settle-mend:install", at("live-layer:check", 0)))
	if record := at("live-usr:attach", 0); slices.ContainsFunc(labels[record:synced], func(l string) bool { return strings.HasPrefix(l, "layer-record") }) {
		t.Errorf("it is written down before: %q", labels[record:synced])
	}
	at("layer-record", synced)
}

// TestKilledWhileItMends: nothing of a mend stays behind a Recover.
func TestKilledWhileItMends(t *testing.T) {
	for _, at := range []string{"settle-mend:content", "settle-mend:sync", "settle-mend:install", "settle-mend:mark"} {
		t.Run(at, func(t *testing.T) {
			m, old, next := twoTops(t, "")
			m.killedAt(at, m.step(old, next), func(label string) {
				if label == "live-usr:attach" {
					m.must(os.Chmod(m.in("usr/proves"), 0o4711))
				}
			})
			m.recovers(old)
			m.reads("usr/proves", strings.Repeat("1", 10000)+"old")
			entries, err := os.ReadDir(m.in("usr"))
			if err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") }) {
				t.Errorf("%v, %v", entries, err)
			}
		})
	}
}
