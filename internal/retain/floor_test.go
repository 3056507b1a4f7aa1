package retain

import (
	"errors"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/reconcile"
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

func TestFloorRule(t *testing.T) {
	assigned := func(name, version string) reconcile.Assigned {
		return reconcile.Assigned{Module: nodeapi.Module{Name: name, Version: version}, Origin: reconcile.ByPlatform}
	}
	rule := FloorRule{
		Floors: store.Floors{"a": {Version: "2"}},
		Here:   []store.GenerationModule{{Name: "a", Version: "1", ManifestDigest: "a1"}},
	}
	unknown := rule
	unknown.Floors, unknown.Unknown = nil, errors.New("floors.json is damaged")
	all := unknown
	all.All = true
	allowed, local := assigned("a", "1.5"), assigned("a", "1.5")
	allowed.AllowDowngrade, local.AllowDowngrade, local.Origin = true, true, reconcile.Here
	for _, c := range []struct {
		name     string
		rule     FloorRule
		a        reconcile.Assigned
		manifest string
		ok       bool
	}{
		{"as high", rule, assigned("a", "2"), "other", true},
		{"lower", rule, assigned("a", "1.5"), "", false},
		{"lower, by the platform's word", rule, allowed, "x", true},
		{"the platform's word isn't that of a local one", rule, local, "x", false},
		{"what runs", rule, assigned("a", "1"), "a1", true},
		{"perhaps what runs", rule, assigned("a", "1"), "", true},
		{"another build of the version that runs", rule, assigned("a", "1"), "other", false},
		{"another name", rule, assigned("b", "0"), "", true},
		{"unknown floors", unknown, assigned("a", "3"), "a3", false},
		{"unknown floors, what runs", unknown, assigned("a", "1"), "a1", true},
		{"unknown floors, allowed", unknown, allowed, "x", true},
		{"unknown floors, all", all, assigned("b", "1"), "x", true},
	} {
		if err := c.rule.Check(c.a, c.manifest); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if a := rule.Apply(assigned("a", "1")); a.Refused != nil || a.Accept("a1") != nil || a.Accept("other") == nil {
		t.Errorf("%+v", a)
	}
	refused := errors.New("no")
	if a := rule.Apply(reconcile.Assigned{Refused: refused}); !errors.Is(a.Refused, refused) {
		t.Errorf("%+v", a)
	}
}
