package store

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

func storeWith(t *testing.T, generations int) *Store {
	t.Helper()
	s := openStore(t, t.TempDir())
	root := []byte("root")
	for range generations {
		if _, err := s.PutGeneration(Generation{RootDigest: fsverity.SumBytes(root)}, bytes.NewReader(root)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestTrials(t *testing.T) {
	s := storeWith(t, 4)
	at := time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)
	if got, err := s.Trial(1); err != nil || !cmp.Equal(got, Trial{Generation: 1}) || got.Exhausted() {
		t.Errorf("of one that had none: %+v, %v", got, err)
	}
	failed := Trial{Generation: 2, Attempts: 2, Limit: 3, Begun: at, BootID: "b", Failed: "nginx.service failed", FailedAt: at}
	begun := Trial{Generation: 3, Attempts: 1, Limit: 3, Begun: at, BootID: "b"}
	for _, trial := range []Trial{begun, failed} {
		if err := s.PutTrial(trial); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Trials()
	if diff := cmp.Diff([]Trial{failed, begun}, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if !failed.Exhausted() || begun.Exhausted() || !(Trial{Attempts: 3, Limit: 3}).Exhausted() {
		t.Error("who is exhausted?")
	}
	for _, bad := range []Trial{{}, {Generation: 9}, {Generation: 2, Attempts: 1, Limit: 3}, {Generation: 2, Attempts: -1}} {
		if err := s.PutTrial(bad); fault.KindOf(err) != fault.Refuse {
			t.Errorf("%+v: %v", bad, err)
		}
	}

	if err := s.Pass(3, at, []string{"x.service"}); err != nil {
		t.Fatal(err)
	}
	want := Trial{Generation: 3, Attempts: 1, Begun: at, BootID: "b", Good: at, FailedUnits: []string{"x.service"}}
	if got, err := s.Trial(3); err != nil || !cmp.Equal(got, want) || got.Exhausted() {
		t.Errorf("after it passed: %+v, %v", got, err)
	}
	if n, err := s.Pointer(Current); n != 3 || err != nil {
		t.Errorf("current is %d, %v", n, err)
	}
	if err := s.Pass(3, at.Add(time.Hour), []string{"x.service"}); err != nil {
		t.Fatal(err)
	}
	if got, _ := s.Trial(3); !got.Good.Equal(at) {
		t.Error("it was written again")
	}

	if err := s.Stage(2); err != nil {
		t.Fatal(err)
	}
	if got, _ := s.Trial(2); got.Exhausted() || got.Attempts != 0 {
		t.Errorf("staged again: %+v", got)
	}
	if n, err := s.Pointer(Staged); n != 2 || err != nil {
		t.Errorf("staged is %d, %v", n, err)
	}
	if err := s.EndTrial(4); err != nil {
		t.Errorf("end one that never began: %v", err)
	}
	if err := s.PutTrial(Trial{Generation: 1, Attempts: 1, Limit: 1}); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveGeneration(1); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(s.generations.Path(), trialFile(1))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the trial of a generation that is gone: %v", err)
	}
}

// TestDamagedTrial: a record that can't be read may have counted the last attempt.
func TestDamagedTrial(t *testing.T) {
	s := storeWith(t, 2)
	if err := s.PutTrial(Trial{Generation: 1, Attempts: 1, Limit: 3}); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(s.generations.Path(), trialFile(1))
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Replace(whole, []byte(`"attempts": 1`), []byte(`"attempts": 0`), 1)
	if bytes.Equal(flipped, whole) {
		t.Fatalf("%s", whole)
	}
	other, err := sealRecord(Trial{Generation: 2})
	if err != nil {
		t.Fatal(err)
	}
	for what, content := range map[string][]byte{"empty": nil, "cut": whole[:len(whole)/2], "flipped": flipped, "another's": other} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := s.Trials()
		if fault.KindOf(err) != fault.Broken || len(got) != 1 || !got[0].Exhausted() || got[0].Generation != 1 {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
	if err := s.Pass(1, time.Now(), nil); err != nil {
		t.Errorf("found good all the same: %v", err)
	}
	if got, err := s.Trial(1); err != nil || got.Exhausted() || got.Good.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzTrial(f *testing.F) {
	whole, err := sealRecord(Trial{Generation: 7, Attempts: 1, Limit: 3})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:20])
	f.Add([]byte("7.trial"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r Trial
		if openRecord(data, &r) == nil && r.check(7) == nil && (r.Generation != 7 || r.Attempts < 0 || r.Limit < 0) {
			t.Errorf("%q became %+v", data, r)
		}
		if n, ok := parseSideFile(string(data), trialSuffix); ok && trialFile(n) != string(data) {
			t.Errorf("%q became the trial of %d", data, n)
		}
	})
}
