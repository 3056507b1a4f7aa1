package retain

import (
	"context"
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/durable/durabletest"
	"github.com/powernode/powernode-agent/internal/store"
)

// crash is a collection that may be cut off anywhere.
var crash = durabletest.Scenario{
	Setup: func(t testing.TB, dir string) {
		history(t, dir, 6)
		st, err := store.Open(dir, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		litter(t, st)
		if err := errors.Join(st.PutPin(store.Pin{Generation: 1}), st.PutLive(store.Live{Generation: 2, At: noon})); err != nil {
			t.Fatal(err)
		}
	},
	Run: func(dir string, hook durable.Hook) (err error) {
		st, err := store.Open(dir, store.Options{Hook: hook})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, st.Close()) }()
		_, err = Collect(context.Background(), st, Options{Now: today})
		return err
	},
	// Whatever is left is whole, the floors are as high as ever, and the next collection ends it.
	Check: func(t testing.TB, dir, op string, _ error) {
		check := func(done bool) {
			st, err := store.Open(dir, store.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			whole(t, st)
			if floors, err := st.Floors(); err != nil || floors["app"].Version != "6" {
				t.Errorf("floors %+v, %v", floors, err)
			}
			numbers := numbersIn(t, st)
			for _, n := range []uint64{1, 4, 5, 6} {
				if !slices.Contains(numbers, n) {
					t.Errorf("generation %d is gone", n)
				}
			}
			if _, err := st.Pins(); err != nil {
				t.Error(err)
			}
			if !done {
				return
			}
			modules, err := st.ModuleDigests()
			left, unlistedErr := 0, error(nil)
			for _, e := range st.Objects() {
				left++
				unlistedErr = errors.Join(unlistedErr, e)
			}
			// Base and 4 of app, each with 2 objects and an image, the shared object, and 4 roots.
			if err := errors.Join(err, unlistedErr); err != nil || len(numbers) != 4 || len(modules) != 5 || left != 5*3+1+4 {
				t.Errorf("%d generations, %d modules, %d objects, %v", len(numbers), len(modules), left, err)
			}
		}
		check(op == "")
		st, err := store.Open(dir, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		if _, err := Collect(t.Context(), st, Options{Now: today}); err != nil {
			t.Errorf("the next collection: %v", err)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
		check(true)
	},
}

func TestCollectCutOff(t *testing.T) {
	t.Run("EDQUOT", func(t *testing.T) { crash.FailEach(t, unix.EDQUOT) })
	t.Run("EIO", func(t *testing.T) { crash.FailEach(t, unix.EIO) })
	t.Run("kill", crash.KillEach)
	t.Run("power cut", crash.PowerCutEach)
}

// TestCollectOnAFullDisk: what is to be written before the first generation goes finds room where garbage was.
func TestCollectOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	crash.Setup(t, dir)
	var removed, refused int
	st := openStore(t, dir, store.Options{Hook: func(op string) error {
		switch {
		case op == "object:remove":
			removed++
		case op == "floors:create" && removed == 0:
			refused++
			return unix.ENOSPC
		case op == "generation:remove" && removed == 0:
			t.Error("a generation went before anything else")
		}
		return nil
	}})
	r, err := Collect(t.Context(), st, Options{Now: today})
	if err != nil || refused != 1 || len(r.Generations) != 2 || r.Objects.Count != removed {
		t.Errorf("%+v, refused %d, removed %d, %v", r, refused, removed, err)
	}
	crash.Check(t, dir, "", nil)

	full := t.TempDir()
	crash.Setup(t, full)
	st = openStore(t, full, store.Options{Hook: func(op string) error {
		if op == "floors:create" {
			return unix.ENOSPC
		}
		return nil
	}})
	r, err = Collect(t.Context(), st, Options{Now: today})
	if !errors.Is(err, unix.ENOSPC) || len(r.Generations) != 0 || r.Objects.Count == 0 {
		t.Errorf("%+v, %v", r, err)
	}
	whole(t, st)
}
