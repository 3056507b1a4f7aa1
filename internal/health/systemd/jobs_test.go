package systemd_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/health/systemd/systemdtest"
)

func TestJobs(t *testing.T) {
	f := &systemdtest.Fake{Results: map[string]string{"b.service": "dependency", "c.service": ""}}
	m := start(t, f)
	got, err := m.Jobs(t.Context(), systemd.Start, []string{"a.service", "b.service", "a.service"}, time.Minute)
	want := []systemd.Outcome{{Unit: "a.service", Result: "done"}, {Unit: "b.service", Result: "dependency"}, {Unit: "a.service", Result: "done"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	got, err = m.Jobs(t.Context(), systemd.Reload, []string{"c.service", "a.service"}, 3*time.Second)
	want = []systemd.Outcome{{Unit: "c.service", Result: systemd.JobUnfinished}, {Unit: "a.service", Result: "done"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if !got[1].Done() || got[0].Done() {
		t.Error("what is done isn't told from what isn't")
	}
	f.Set(func(f *systemdtest.Fake) { f.Refuse = "Unit a.service is masked." })
	got, err = m.Jobs(t.Context(), systemd.Stop, []string{"a.service"}, time.Minute)
	if err != nil || got[0].Result != systemd.JobRefused || !strings.Contains(got[0].Err.Error(), "masked") {
		t.Errorf("%v, %+v", err, got)
	}
	want2 := []string{"StartUnit a.service", "StartUnit b.service", "StartUnit a.service", "ReloadOrTryRestartUnit c.service", "ReloadOrTryRestartUnit a.service"}
	if diff := cmp.Diff(want2, f.Asked()); diff != "" {
		t.Error(diff)
	}
}

func TestUnitState(t *testing.T) {
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f := &systemdtest.Fake{Properties: map[string]map[string]any{"a.service": {
		"ActiveState": "active", "SubState": "running", "Result": "success", "InvocationID": []byte{0xab, 1}, "MainPID": uint32(7),
		"NRestarts": uint32(2), "ExecMainStatus": int32(3), "ActiveEnterTimestamp": uint64(since.UnixMicro()), "Documentation": []string{"x"},
	}}}
	m := start(t, f)
	got, err := m.Units(t.Context(), []string{"a.service", "none.service"})
	want := []systemd.UnitState{
		{Name: "a.service", Load: "loaded", Active: "active", Sub: "running", Result: "success", Invocation: "ab01", Since: since, MainPID: 7, Restarts: 2, ExitStatus: 3},
		{Name: "none.service", Load: "not-found", Active: "inactive"},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateApproxTime(0)); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestReloadAndAllowAddresses(t *testing.T) {
	f := &systemdtest.Fake{}
	m := start(t, f)
	if err := m.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	allowed := []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/128")}
	if err := m.AllowAddresses(t.Context(), "a.service", allowed); err != nil {
		t.Error(err)
	}
	asked := f.Asked()
	if len(asked) != 2 || asked[0] != "Reload" || !strings.HasPrefix(asked[1], "SetUnitProperties a.service true") || !strings.Contains(asked[1], "[0xc0, 0x0, 0x2, 0x0], 24") {
		t.Errorf("%q", asked)
	}
	f.Set(func(f *systemdtest.Fake) { f.Refuse = "no" })
	if err := m.AllowAddresses(t.Context(), "a.service", nil); err == nil {
		t.Error("a refusal is taken for a yes")
	}
}
