package places

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/bootconfig"
	"github.com/powernode/powernode-agent/internal/device"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/oracle"
)

func namesOf(sources []identity.Source) []string {
	var names []string
	for _, s := range sources {
		names = append(names, s.Name())
	}
	return names
}

// elsewhere is a machine with nothing on it.
func elsewhere(t *testing.T) Places {
	dir := t.TempDir()
	return Places{
		Cmdline: filepath.Join(dir, "cmdline"), FWCfg: filepath.Join(dir, "fw_cfg"), Sys: dir, Run: dir, Files: []string{},
		Devices: device.Options{Sysfs: dir, Dev: dir},
	}
}

func TestOrder(t *testing.T) {
	want := "dmi cmdline fw_cfg smbios credentials boot file:/boot/identity.cfg file:/etc/identity.cfg file:/persist/etc/identity.cfg nocloud aws gcp azure digitalocean hetzner"
	if got := strings.Join(namesOf(Places{}.Sources()), " "); got != want {
		t.Errorf("the order is %s", got)
	}
	for _, c := range []struct {
		places Places
		want   string
		claim  bool
	}{
		{Places{IdentityFile: "/x", Only: []string{"aws"}}, "file:/x", false},
		{Places{Files: []string{"/y"}, Only: []string{"file"}}, "file:/y", false},
		{Places{Only: []string{"hetzner", "cmdline", "claim"}}, "cmdline hetzner", true},
		{Places{Only: []string{"claim"}}, "", true},
		{Places{Only: []string{}}, "", false},
	} {
		if got := strings.Join(namesOf(c.places.Sources()), " "); got != c.want || c.places.Claim() != c.claim {
			t.Errorf("%v: %s, claim %v", c.places, got, c.places.Claim())
		}
	}
	if !(Places{}).Claim() {
		t.Error("a machine without a token may be claimed")
	}
}

// TestNamesAreTheSettings: what may be named is what there is, and docs/boot.md has the same order.
func TestNamesAreTheSettings(t *testing.T) {
	var names []string
	for _, name := range namesOf(Places{Files: []string{"x"}}.Sources()) {
		name, _, _ = strings.Cut(name, ":")
		names = append(names, name)
	}
	if d := cmp.Diff(append(names, ClaimName), bootconfig.IdentitySources()); d != "" {
		t.Error(d)
	}
	text, err := os.ReadFile(filepath.Join(oracle.Root(t), "docs", "boot.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "| source | where | |\n")
	table, _, _ := strings.Cut(rest, "\n\n")
	var documented []string
	for row := range strings.Lines(table) {
		cell := strings.Split(row+"|", "|")[1]
		for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(cell, -1) {
			documented = append(documented, m[1])
		}
	}
	if d := cmp.Diff(names, documented); d != "" {
		t.Error(d)
	}
}

// TestNobodyIsContacted: a machine that isn't in a cloud has every source say why it has nothing, at once.
func TestNobodyIsContacted(t *testing.T) {
	where := elsewhere(t)
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	_, reports, err := identity.Resolver{Sources: where.Sources(), All: true}.Resolve(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no platform URL") {
		t.Error(err)
	}
	if len(reports) != len(where.Sources()) {
		t.Errorf("%d reports", len(reports))
	}
	for _, r := range reports {
		if r.Status != identity.StatusAbsent || r.Reason == "" {
			t.Errorf("%s: %s %s", r.Source, r.Status, r.Reason)
		}
	}
}

// TestACloudIsAskedByName: the firmware doesn't matter then.
func TestACloudIsAskedByName(t *testing.T) {
	where := elsewhere(t)
	where.Only = []string{"gcp", "aws"}
	for _, s := range where.Sources() {
		remote, ok := s.(identity.Remote)
		if !ok {
			t.Errorf("%s isn't asked over the network", s.Name())
			continue
		}
		if here, why := remote.Here(); !here || why != "asked for by name" {
			t.Errorf("%s: %v, %s", s.Name(), here, why)
		}
	}
}
