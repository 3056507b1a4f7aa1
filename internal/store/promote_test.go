package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPromoteOverDamage: what is damaged of the pointers and records is no reason not to run what
// is good.
func TestPromoteOverDamage(t *testing.T) {
	for _, c := range []struct {
		name, file, content string
		previous            uint64
	}{
		{"the current pointer", "current", "rubbish", 0},
		{"the current pointer names nothing", "current", "9", 0},
		{"the current generation's record", "2.json", "{", 0},
		{"the staged pointer", "staged", "rubbish", 2},
		{"the previous pointer", "previous", "rubbish", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir)
			x := makeSample("nginx", 1)
			if err := x.put(s); err != nil {
				t.Fatal(err)
			}
			for _, image := range []string{"one", "two", "three"} {
				if _, err := s.PutGeneration(x.generation([]byte(image)), strings.NewReader(image)); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Promote(2); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "generations", c.file), []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}

			if err := s.Promote(3); err != nil {
				t.Fatal(err)
			}
			if n, err := s.Pointer(Current); n != 3 || err != nil {
				t.Errorf("current is %d, %v", n, err)
			}
			if n, err := s.Pointer(Previous); n != c.previous || err != nil {
				t.Errorf("previous is %d, %v", n, err)
			}
		})
	}
}
