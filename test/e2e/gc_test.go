package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// collected is what is read here of `gc --output json`.
type collected struct {
	FreedBytes  int64 `json:"freed_bytes"`
	Generations []struct {
		Generation uint64 `json:"generation"`
	} `json:"generations"`
	Modules []struct {
		Version string `json:"version"`
	} `json:"modules"`
	Objects struct {
		Count int `json:"count"`
	} `json:"objects"`
}

// TestCollection: a node that ran seven versions gets rid of the old ones, while it runs; what is pinned stays, and so
// does all that it runs, boots, and could go back to.
func TestCollection(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"))
	n := p.node("web", "base", "app")
	for v := 2; v <= 7; v++ {
		s := n.boot()
		if v == 3 {
			s.agent("generations", "pin", "2", "--note", "before the move").OK(t)
		}
		s.exit()
		p.Publish(app(fmt.Sprint(v)))
	}
	s := n.boot()
	before := len(n.objects())
	gc := func(args ...string) collected {
		t.Helper()
		var c collected
		if err := json.Unmarshal([]byte(s.agent(append([]string{"gc", "--output", "json"}, args...)...).OK(t)), &c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	would, did := gc("--dry-run"), gc()
	if fmt.Sprint(would) != fmt.Sprint(did) || len(did.Generations) != 3 || len(did.Modules) != 3 || did.FreedBytes == 0 {
		t.Errorf("would %+v, did %+v", would, did)
	}
	if after := len(n.objects()); before-after != did.Objects.Count || did.Objects.Count < 9 {
		t.Errorf("%d objects, then %d, and %d were removed", before, after, did.Objects.Count)
	}
	if page := s.read("/etc/app/page"); !strings.HasPrefix(page, "the app's page, version 7") {
		t.Errorf("what runs: %q", page)
	}
	if status := s.status(); !status.InStep || status.Generation != 7 {
		t.Errorf("%+v", status)
	}
	s.agent("status", "--check").OK(t)
	list := s.agent("generations").OK(t)
	for _, want := range []string{"pinned (before the move)", "runs, current", "a rollback leads to:"} {
		if !strings.Contains(list, want) {
			t.Errorf("no %q in\n%s", want, list)
		}
	}
	if again := gc(); again.FreedBytes != 0 {
		t.Errorf("again: %+v", again)
	}
	s.exit()
	p.Stop()
	s = n.boot()
	if status := s.status(); !status.InStep || status.Generation != 7 {
		t.Errorf("booted again: %+v", status)
	}
	s.exit()
}
