package retain

import (
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/store"
)

func TestCheckFloor(t *testing.T) {
	floors := store.Floors{"nginx": {Version: "1.10", Generation: 7}}
	for _, c := range []struct {
		name, version string
		allowed       bool
		ok            bool
	}{
		{"nginx", "1.10", false, true},
		{"nginx", "1.10.1", false, true},
		{"nginx", "1.9", false, false},
		{"nginx", "1.10~rc1", false, false},
		{"nginx", "1.9", true, true},
		{"nginx", "", false, false},
		{"base", "0", false, true},
	} {
		err := CheckFloor(floors, c.name, c.version, c.allowed)
		if (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
		if err != nil && (fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Policy || !strings.Contains(fault.HintOf(err), "--allow-downgrade") ||
			!strings.Contains(err.Error(), "1.10") || !strings.Contains(err.Error(), "generation 7")) {
			t.Errorf("%v; %s", err, fault.HintOf(err))
		}
	}
	if err := CheckFloor(nil, "nginx", "1", false); err != nil {
		t.Errorf("no floors yet: %v", err)
	}
}

func TestCheckFloors(t *testing.T) {
	module := func(name, version, digest string) store.GenerationModule {
		return store.GenerationModule{Name: name, Version: version, ManifestDigest: digest}
	}
	floors := store.Floors{"a": {Version: "2"}, "b": {Version: "2"}, "c": {Version: "2"}, "d": {Version: "2"}}
	running := []store.GenerationModule{module("a", "1", "a1"), module("b", "1", "b1")}
	wanted := []store.GenerationModule{module("a", "1", "a1"), module("b", "1", "other"), module("c", "1", "c1"), module("d", "3", "d3")}
	refused := CheckFloors(floors, running, wanted, func(m store.GenerationModule) bool { return m.Name == "c" })
	if len(refused) != 1 || refused[1] == nil {
		t.Errorf("%v", refused)
	}
	if refused := CheckFloors(floors, nil, wanted, nil); len(refused) != 3 {
		t.Errorf("with nothing running: %v", refused)
	}
}
