package change

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestLast: what the platform assigned, and what became of it, is known until the next update.
func TestLast(t *testing.T) {
	n := three(t)
	if _, ok, err := ReadLast(n.run); ok || err != nil {
		t.Errorf("before: %t, %v", ok, err)
	}
	n.assign(n.publish("app", "2", map[string]string{"usr/app": long("x")}, nil))
	n.must(Request{Kind: Update, DryRun: true})
	if _, ok, _ := ReadLast(n.run); ok {
		t.Error("a dry run leaves a record")
	}
	n.must(Request{Kind: Update})
	last, ok, err := ReadLast(n.run)
	versions := make(map[string]string)
	for _, m := range last.Assigned {
		versions[m.Name] = m.Version
	}
	if diff := cmp.Diff(map[string]string{"app": "2", "base": "1", "site": "1"}, versions); diff != "" || !ok || err != nil {
		t.Errorf("%t, %v\n%s", ok, err, diff)
	}
	if len(last.Failed) != 1 || last.Failed[0].Kept != "1" || last.Refused != "" || last.At.IsZero() {
		t.Errorf("%+v", last)
	}
	n.list.Modules = n.list.Modules[:1]
	if _, err := n.do(Request{Kind: Update}); err == nil {
		t.Fatal("most is taken")
	}
	if last, _, _ = ReadLast(n.run); !strings.Contains(last.Refused, "would go at once") || len(last.Assigned) != 1 {
		t.Errorf("%+v", last)
	}
	// What isn't an answer changes nothing of it.
	n.list.Modules = nil
	_, _ = n.do(Request{Kind: Update})
	if again, _, _ := ReadLast(n.run); len(again.Assigned) > 1 {
		t.Errorf("%+v", again)
	}
}
