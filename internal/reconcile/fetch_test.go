package reconcile

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

// TestFetchNamesEveryBadModule, and fetches the others all the same.
func TestFetchNamesEveryBadModule(t *testing.T) {
	w := newWorld(t)
	w.module("base", "1", map[string]string{"usr/a": long("a")})
	w.assign(w.publish("unsigned", "1", map[string]string{"usr/b": long("b")}, nil))
	bad := w.publish("odd", "1", nil, w.key)
	bad.Repository = "no repository"
	w.assign(bad)
	w.module("app", "1", map[string]string{"usr/c": long("c")})
	w.list.RootDigest = strings.Repeat("ab", 32)

	plan, err := w.reconciler().Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Wanted) != 2 || plan.Wanted[0].Name != "base" || plan.Wanted[1].Name != "app" || plan.Pulled.Modules != 2 || plan.Expected.String() != w.list.RootDigest {
		t.Errorf("plan %+v", plan)
	}
	err = plan.Err()
	if fault.KindOf(err) != fault.Refuse || fault.HintOf(err) == "" {
		t.Errorf("%v: %v, hint %q", err, fault.KindOf(err), fault.HintOf(err))
	}
	for _, want := range []string{"2 of 4 modules", "unsigned 1", "isn't an OCI repository"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q doesn't say %q", err, want)
		}
	}
}

// TestFetchStopsAtAnOutage: the patience that it takes is spent once.
func TestFetchStopsAtAnOutage(t *testing.T) {
	w := newWorld(t)
	w.down = fault.New(fault.Retry, fault.Platform, "wait", "no answer")
	if _, err := w.reconciler().Fetch(t.Context()); !errors.Is(err, w.down) {
		t.Errorf("error %v", err)
	}
	w.down = nil
	if _, err := w.reconciler().Fetch(t.Context()); fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "no modules") {
		t.Errorf("nothing assigned: %v", err)
	}
	if _, err := w.reconciler(func(c *Config) { c.Platform = nil }).Fetch(t.Context()); fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "no credentials") {
		t.Errorf("nobody to ask: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.module("base", "1", map[string]string{"usr/a": long("a")})
	if _, err := w.reconciler().Fetch(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestProveMends: a module that was damaged is fetched again, once, and only that one.
func TestProveMends(t *testing.T) {
	w := newWorld(t)
	w.module("base", "1", map[string]string{"usr/a": long("a"), "usr/b": long("b")})
	w.module("app", "1", map[string]string{"usr/c": long("c")})
	g := w.boot()
	w.damage(w.object(long("a")))
	if err := os.Remove(w.object(long("b"))); err != nil {
		t.Fatal(err)
	}
	r := w.reconciler()
	mended, err := r.Heal(t.Context(), g)
	if err != nil || len(mended) != 1 || mended[0].Wanted.Name != "base" || mended[0].Objects != 2 || mended[0].Bytes == 0 {
		t.Fatalf("mended %+v, %v", mended, err)
	}
	if text := mended[0].String(); !strings.Contains(text, "module base 1: /usr/a") || !strings.HasSuffix(text, "and is whole") {
		t.Errorf("%q", text)
	}
	if damage, err := (Inspector{w.store, g}).All(t.Context(), true); err != nil || len(damage) != 0 {
		t.Errorf("still damaged: %+v, %v", damage, err)
	}
	// Once is enough: damage that comes back at once has another reason than the bytes.
	w.damage(w.store.ObjectsPath() + "/" + g.Modules[0].Seal.ObjectPath())
	if _, err := r.Heal(t.Context(), g); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("twice: %v", err)
	}
	w.damage(w.object(long("a")))
	// Without the registry what is damaged stays, and is the reason.
	w.unreachable()
	_, err = w.reconciler().Heal(t.Context(), g)
	if err == nil || fault.KindOf(err) != fault.Broken || !strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), "; nor can it be mended: ") {
		t.Errorf("without the registry: %v", err)
	}
	if _, err := os.Stat(w.object(long("a"))); err != nil {
		t.Error(err)
	}
}

// TestHealTheRootImage, which no registry has: it is composed anew.
func TestHealTheRootImage(t *testing.T) {
	w := newWorld(t)
	w.module("base", "1", map[string]string{"usr/a": long("a")})
	g := w.boot()
	for name, spoil := range map[string]func(string){
		"damaged": w.damage,
		"gone":    func(path string) { os.Remove(path) },
	} {
		spoil(w.store.ObjectsPath() + "/" + g.RootDigest.ObjectPath())
		_, err := w.reconciler().Heal(t.Context(), g)
		if err != nil || w.store.VerifyObject(g.RootDigest) != nil {
			t.Errorf("%s: %v, then %v", name, err, w.store.VerifyObject(g.RootDigest))
		}
	}
}

// TestHealARecord: a record that is lost is had by what the platform's list says.
func TestHealARecord(t *testing.T) {
	w := newWorld(t)
	m := w.module("base", "1", map[string]string{"usr/a": long("a")})
	g := w.boot()
	if err := os.RemoveAll(w.store.Path() + "/modules/" + strings.TrimPrefix(m.Digest, "sha256:")); err != nil {
		t.Fatal(err)
	}
	if damage, err := (Inspector{w.store, g}).All(t.Context(), false); err != nil || len(damage) != 1 || damage[0].Kind != "module record" {
		t.Errorf("damage %+v, %v", damage, err)
	}
	if _, err := w.reconciler(func(c *Config) { c.Platform = nil }).Heal(t.Context(), g); err == nil {
		t.Error("healed without a platform")
	}
	mended, err := w.reconciler().Heal(t.Context(), g)
	if err != nil || len(mended) != 1 || !mended[0].Record {
		t.Errorf("mended %+v, %v", mended, err)
	}
}

func TestInspectorSaysWhatIsDamaged(t *testing.T) {
	w := newWorld(t)
	shared := long("shared")
	base := map[string]string{"usr/shared": shared, "usr/again": shared}
	for i := range 20 {
		base["usr/many/"+string(rune('a'+i))] = long("many")
	}
	w.module("base", "1", base)
	w.module("app", "1", map[string]string{"opt/shared": shared, "usr/c": long("c")})
	g := w.boot()
	w.damage(w.object(shared))
	w.damage(w.object(long("many")))
	w.damage(w.store.ObjectsPath() + "/" + g.Modules[1].Seal.ObjectPath())
	w.damage(w.store.ObjectsPath() + "/" + g.RootDigest.ObjectPath())
	damage, err := Inspector{w.store, g}.All(t.Context(), false)
	if err != nil || len(damage) != 4 {
		t.Fatalf("%+v, %v", damage, err)
	}
	var texts []string
	for _, d := range damage {
		texts = append(texts, d.String())
	}
	all := strings.Join(texts, "\n")
	for _, want := range []string{
		"/usr/again, /usr/shared of base 1, app 1: object " + fsverity.SumBytes([]byte(shared)).String(),
		"/usr/many/h and 12 more of base 1: ", "the module image of app 1: ", "the root image: ",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
	// The same modules, healed by what the inspection found.
	mended, err := w.reconciler().HealDamage(t.Context(), g, damage)
	if err != nil || len(mended) != 3 {
		t.Errorf("mended %+v, %v", mended, err)
	}
	if damage, err := (Inspector{w.store, g}).All(t.Context(), true); err != nil || len(damage) != 0 {
		t.Errorf("still damaged: %+v, %v", damage, err)
	}
}
