package mount

import (
	"encoding/json"
	"testing"

	"github.com/powernode/powernode-agent/internal/mount/mounttest"
)

func TestUnionSmoke(t *testing.T) {
	mounttest.NeedMounts(t)
	a, err := Probe(t.TempDir())
	must(t, err)
	b, _ := json.MarshalIndent(a, "", " ")
	t.Logf("%s", b)
	s := seal(t, t.TempDir(), map[string]string{"etc/small": "x", "usr/bin/big": big})
	m, err := Union(s.writable(t, t.TempDir()))
	must(t, err)
	dir := attached(t, m)
	if read(t, dir, "usr/bin/big") != big {
		t.Fatal("wrong")
	}
	e, err := At(dir)
	must(t, err)
	b, _ = json.MarshalIndent(e, "", " ")
	t.Logf("%s", b)
	m, err = Union(s.spec(t))
	must(t, err)
	dir = attached(t, m)
	if read(t, dir, "usr/bin/big") != big {
		t.Fatal("wrong")
	}
	u, err := UnionAt(dir)
	must(t, err)
	b, _ = json.MarshalIndent(u, "", " ")
	t.Logf("%s", b)
}
