package change

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/powernode/powernode-agent/internal/rootfs"
)

// quick is somebody who does something at a labelled step of a change, once.
type quick struct {
	at   string
	do   func()
	once sync.Once
}

func (q *quick) hook(label string) error {
	if label == q.at {
		q.once.Do(q.do)
	}
	return nil
}

// TestChangesInTheMomentOfASwap: what is changed over the old root when everything was settled and before the new one is seen keeps its
// meaning, and so does what is changed over the new one before the old one is back.
func TestChangesInTheMomentOfASwap(t *testing.T) {
	// Of one length and one time: nothing but the digest, where there is one, or the moment tells them apart.
	one, two := strings.Repeat("1", 10000), strings.Repeat("2", 10000)
	for _, at := range []string{"live-union:mount", "live-scratch:unmount", "live-usr:beneath", "live-usr:detach"} {
		for _, how := range []string{"forward", "back"} {
			t.Run(how+" "+at, func(t *testing.T) {
				m := newMounted(t)
				old := m.generation(map[string]string{"usr/app": one, "usr/dir/f": one, "usr/other/f": "o", "usr/gone/g": long("g"), "opt/x": "1"}, nil)
				next := m.generation(map[string]string{"usr/app": two, "usr/dir/f": two, "usr/other/f": "o", "usr/made/f": "new", "opt/x": "2"}, nil)
				m.boot(old, rootfs.Ephemeral)
				machine, s := m.machine(), m.step(old, next)
				// The second swap is beneath a mount of ours, and not upon the union at "/".
				for range 2 {
					_, err := machine.Swap(t.Context(), s, Findings{})
					m.must(err)
					_, err = machine.Undo(t.Context(), s, Findings{})
					m.must(err)
				}
				q := &quick{at: at, do: func() {
					m.must(errors.Join(
						os.Chmod(m.in("usr/app"), 0o711), os.Rename(m.in("usr/dir"), m.in("usr/moved")),
						os.WriteFile(m.in("usr/moved/mine"), []byte("mine"), 0o600), os.Rename(m.in("usr/app"), m.in("usr/renamed")),
					))
					if how == "forward" {
						m.must(errors.Join(os.Mkdir(m.in("usr/made"), 0o700), os.Chmod(m.in("usr/gone/g"), 0o711)))
					}
				}}
				if how == "forward" {
					machine.Place.Hook = q.hook
				}
				remarks, err := machine.Swap(t.Context(), s, Findings{})
				if err != nil || len(remarks) > 0 {
					t.Fatalf("%q, %v", remarks, err)
				}
				want := one
				if how == "back" {
					want = two
					machine.Place.Hook = q.hook
					remarks, err = machine.Undo(t.Context(), s, Findings{})
					m.must(err)
				} else {
					m.reads("usr/gone/g", long("g"))
					m.reads("usr/made/f", "new")
				}
				m.reads("usr/renamed", want)
				m.mode("usr/renamed", 0o711)
				m.reads("usr/moved/mine", "mine")
				m.reads("usr/moved/f", want)
				if len(remarks) > 0 {
					t.Errorf("%q", remarks)
				}
			})
		}
	}
}
