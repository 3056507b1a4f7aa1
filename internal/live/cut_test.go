package live

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// cutNode is a node with two roots, whose sandboxes are begun by kind.
func cutNode(t *testing.T) (n *node, a, b Side) {
	t.Helper()
	n = newNode(t)
	files := func(version string) Side {
		f := versionFiles(version)
		f["tmp/"], f["usr/writable/"], f["usr/place/"], f["usr/secret/key"] = "", "", "", version
		return n.files(f)
	}
	a, b = files("a"), files("b")
	n.boot(a, nil)
	return n, a, b
}

// cutKinds are the kinds of sandboxes, and whether a change cuts them off.
var cutKinds = map[string]bool{"PrivateTmp": false, "ProtectSystem=full": true, "ProtectSystem=strict": true, "InaccessiblePaths": true, "private": false}

func (n *node) sandboxes() map[string]*sandbox {
	n.Helper()
	of := make(map[string]*sandbox)
	for kind := range cutKinds {
		of[kind] = n.sandbox(kind)
	}
	return of
}

// named checks that of the sandboxes those are named which are cut off, or none.
func (n *node) named(of map[string]*sandbox, namespaces []Namespace, any bool) {
	n.Helper()
	for kind, s := range of {
		is := slices.ContainsFunc(namespaces, func(ns Namespace) bool { return slices.Contains(ns.PIDs, s.pid) })
		if want := cutKinds[kind] && any; is != want {
			n.Errorf("%s is named: %t, want %t", kind, is, want)
		}
	}
}

// TestFailedSwapNamesWhomItCutOff: a swap that fails once the sandboxes were cut off says which, as they stay so; what was cut off is said once.
func TestFailedSwapNamesWhomItCutOff(t *testing.T) {
	for _, at := range []string{"live-usr:attach", "live-link-b:link", "live-done:rename", "before"} {
		t.Run(at, func(t *testing.T) {
			n, a, b := cutNode(t)
			of := n.sandboxes()
			spec, fails := n.spec(a, b), errors.New("it fails")
			spec.Hook = func(label string) error {
				if label == at {
					return fails
				}
				return nil
			}
			spec.BeforeReplace = func(_ context.Context, back bool) error {
				if at == "before" && !back {
					return fails
				}
				return nil
			}
			for i := range 2 {
				result, err := Swap(t.Context(), spec)
				if !errors.Is(err, fails) || Recoverable(n.run) {
					t.Fatalf("%v, half-way %t", err, Recoverable(n.run))
				}
				n.whole(a)
				n.named(of, append(result.Kept, result.Late...), i == 0)
			}
			// That is what they are told for.
			must(t, unix.Mount("later", n.in("usr/place"), "tmpfs", 0, ""))
			n.write("usr/place/file", "later")
			for kind, s := range of {
				if got := s.sees("usr/place/file"); (got == "later") != (kind == "PrivateTmp") {
					t.Errorf("%s: what was mounted later reads %q", kind, got)
				}
			}
		})
	}
}

// TestSandboxesOfAChangeThatIsTakenBack: whom the way back cuts off is named, too: sandboxes that began over the new root.
func TestSandboxesOfAChangeThatIsTakenBack(t *testing.T) {
	n, a, b := cutNode(t)
	_, err := Swap(t.Context(), n.spec(a, b))
	must(t, err)
	of := n.sandboxes()
	delete(of, "ProtectSystem=full") // it has nothing but the tree that goes, which it keeps
	result, err := Undo(t.Context(), n.place())
	must(t, err)
	n.whole(a)
	n.named(of, append(result.Kept, result.Late...), true)
}

// TestRecoverNamesWhomAKilledSwapCutOff goes by the journal: nothing else knows.
func TestRecoverNamesWhomAKilledSwapCutOff(t *testing.T) {
	for _, at := range []string{"live-usr:attach", "live-link-b:link"} {
		t.Run(at, func(t *testing.T) {
			n, a, b := cutNode(t)
			of := n.sandboxes()
			n.swapKilledAt(at, n.spec(a, b))
			r, ok, err := Recover(t.Context(), n.place(), a.Generation)
			if err != nil || !ok || r.Forward {
				t.Fatalf("%+v, %t, %v", r, ok, err)
			}
			n.whole(a)
			n.named(of, r.Kept, true)
		})
	}
}

// swapKilledAt has a goroutine swap, which ends at a label as a process that is killed does.
func (n *node) swapKilledAt(at string, spec Spec) {
	n.Helper()
	died, done := false, make(chan error, 1)
	spec.Hook = func(label string) error {
		if label == at {
			died = true
			runtime.Goexit()
		}
		return nil
	}
	go func() {
		defer close(done)
		_, err := Swap(context.Background(), spec)
		done <- err
	}()
	if err := <-done; !died {
		n.Fatalf("it isn't killed at %s: %v", at, err)
	}
	if _, err := ReadJournal(n.run); err != nil || !strings.HasPrefix(at, "live-") {
		n.Fatal(err)
	}
}
