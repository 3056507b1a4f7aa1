package live

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestSandboxesThatAreJustMade begin when it was looked for such, and before the new trees come: they are no more open than others.
func TestSandboxesThatAreJustMade(t *testing.T) {
	for _, at := range []string{"live-usr:beneath", "live-usr:attach", "live-usr:detach", "live-srv-b:attach"} {
		t.Run(at, func(t *testing.T) {
			n := newNode(t)
			files := func(version string) Side {
				f := versionFiles(version)
				f["tmp/"], f["usr/writable/"], f["usr/secret/key"], f["home/version"] = "", "", version, version
				return n.files(f)
			}
			a, b := files("a"), files("b")
			n.boot(a, nil)
			from, to := a, b
			if strings.Contains(at, "beneath") || strings.Contains(at, "detach") {
				// Beneath a mount of ours, and not upon the union at "/".
				n.swap(a, b)
				from, to = b, a
			}
			of := make(map[string]*sandbox)
			spec := n.spec(from, to)
			spec.Hook = func(label string) error {
				if label == at && len(of) == 0 {
					for _, kind := range []string{"PrivateTmp", "ProtectSystem=full", "ProtectSystem=strict", "InaccessiblePaths", "private"} {
						of[kind] = n.sandbox(kind)
					}
				}
				return nil
			}
			result, err := Swap(t.Context(), spec)
			must(t, errors.Join(err, Finish(n.run, nil)))
			n.whole(to)
			if len(of) == 0 {
				t.Fatal("there is no such step")
			}
			for kind, s := range of {
				if got := s.canWrite("usr/new-file"); got != (kind != "ProtectSystem=full" && kind != "ProtectSystem=strict") {
					t.Errorf("%s: /usr can be written: %v", kind, got)
				}
				if got := s.canWrite("etc/new-file"); got != (kind != "ProtectSystem=full" && kind != "ProtectSystem=strict") {
					t.Errorf("%s: /etc can be written: %v", kind, got)
				}
				if got := s.sees("usr/secret/key"); (kind == "InaccessiblePaths") != strings.Contains(got, "no such file") {
					t.Errorf("%s: the secret reads %s", kind, got)
				}
				if got := s.sees("usr/version"); got != "a" && got != "b" {
					t.Errorf("%s: /usr/version reads %s", kind, got)
				}
				late := slices.ContainsFunc(result.Late, func(ns Namespace) bool { return slices.Contains(ns.PIDs, s.pid) })
				t.Logf("%s: late %t, of version %s", kind, late, s.sees("usr/version"))
				if late && (kind == "PrivateTmp" || kind == "private") {
					t.Errorf("%s has nothing that a new tree could cover", kind)
				}
			}
			if len(n.remarks) > 0 {
				t.Errorf("%q", n.remarks)
			}
		})
	}
}
