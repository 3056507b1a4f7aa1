package vm

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/test/lab"
	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// broken is a module whose unit fails at its start: one that systemd's own means enable.
func broken() lab.Module {
	const units = "usr/lib/systemd/system/"
	return lab.Module{Name: "broken", Version: "1", Files: map[string]string{
		"usr/share/broken/page":                          "x",
		units + "broken.service":                         "[Unit]\nDescription=Fails at its start\n[Service]\nType=oneshot\nExecStart=/bin/false\n",
		units + "multi-user.target.wants/broken.service": "-> ../broken.service",
	}}
}

// hollow is a module whose service, of its manifest, ends right after its start and is started again for ever.
func hollow() lab.Module {
	return lab.Module{
		Name: "hollow", Version: "1", Files: map[string]string{"usr/share/hollow/page": "x"},
		Manifest: "services:\n  - name: run\n    start_command: /bin/false\n",
	}
}

// leftOut is what a changing command says of the modules that it left out.
type leftOut struct {
	Failed []struct{ Name, Reason string }
}

// unitsThatDoNotStart has the platform assign two modules whose units don't start beside one that has nothing wrong: those two go out again, each
// with its reason in the answer, in the status and in the heartbeat, and the rest is done.
func (s *system) unitsThatDoNotStart(p *platform) {
	t := s.n.t
	t.Helper()
	p.Publish(broken())
	p.Publish(hollow())
	p.Publish(extra(t))
	p.assign(s.n.name, "broken", "hollow", "extra")
	doc, r := s.changed("update")
	var left leftOut
	if err := json.Unmarshal([]byte(r.Stdout), &left); err != nil {
		t.Fatal(err)
	}
	if r.Code != 8 || doc.Outcome != change.WentLive || len(left.Failed) != 2 {
		t.Fatalf("%s: exit code %d\n%s%s", r.What, r.Code, r.Stdout, r.Stderr)
	}
	t.Logf("%s: left out %+v, remarks %q", r.What, left.Failed, doc.Remarks)
	reasons := make(map[string]string)
	for _, f := range left.Failed {
		reasons[f.Name] = f.Reason
	}
	for name, unit := range map[string]string{"broken": "broken.service", "hollow": "powernode-hollow_run.service"} {
		if !strings.Contains(reasons[name], unit) {
			t.Errorf("module %s was left out because of %q", name, reasons[name])
		}
		s.active(unit, false)
		if got := s.Run("systemctl", "show", "-P", "LoadState", unit).Stdout; got != "not-found\n" {
			t.Errorf("unit %s is %s", unit, got)
		}
		if s.ReadError("/usr/share/"+name+"/page") == "" {
			t.Errorf("module %s is there", name)
		}
		if r := s.agent("status"); r.Code != 8 || !strings.Contains(r.Stdout, unit) {
			t.Errorf("status: exit code %d\n%s", r.Code, r.Stdout)
		}
	}
	s.holds("/usr/share/extra/page", liveText("what has nothing wrong", "1"))
	for deadline := time.Now().Add(qemu.Patience); ; time.Sleep(time.Second) {
		report := s.n.detail().Node.Report
		if report != nil && strings.Contains(strings.Join(report.Remarks, "\n"), reasons["broken"]) && strings.Contains(strings.Join(report.Remarks, "\n"), reasons["hollow"]) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the platform doesn't hear of it: %+v", report)
		}
	}
	p.Operator("unassign", s.n.name, "broken", "hollow").OK(t)
	if doc, r := s.changed("update"); r.Code != 0 || doc.Outcome != change.InStep {
		t.Errorf("%s: exit code %d, %s", r.What, r.Code, doc.Outcome)
	}
}

// denied is what the profile takes from the service.
const denied = "/etc/apparmor-denied"

// confined is a module with a service that runs by a profile of AppArmor.
func confined() lab.Module {
	return lab.Module{
		Name: "confined", Version: "1", Files: map[string]string{strings.TrimPrefix(denied, "/"): "secret\n"},
		Manifest: "security: {apparmor_profile: powernode-test}\nservices:\n  - name: run\n    start_command: /usr/lib/confined/run\n",
		Programs: map[string][]byte{"usr/lib/confined/run": []byte("#!/bin/sh\ncat " + denied + " >/run/confined.read 2>&1\nexec sleep infinity\n")},
	}
}

// confinedByAppArmor attaches a service with a profile that isn't loaded, which is refused, and again once it is: it runs by that.
func (s *system) confinedByAppArmor(p *platform) {
	t := s.n.t
	t.Helper()
	const unit, list = "powernode-confined_run.service", "/sys/kernel/security/apparmor/profiles"
	if got := s.Read("/sys/module/apparmor/parameters/enabled"); got != "Y\n" {
		t.Fatalf("the guests' kernel runs without AppArmor: %q", got)
	}
	p.Publish(confined())
	p.assign(s.n.name, "confined")
	_, r := s.changed("attach", "confined")
	if !strings.Contains(r.Stdout, "powernode-test isn't loaded") || !strings.Contains(s.Read("/run/powernode/services.json"), "powernode-test isn't loaded") {
		t.Errorf("%s: exit code %d, and nothing of the profile\n%s", r.What, r.Code, r.Stdout)
	}
	s.active(unit, false)
	if r := s.agent("status"); r.Code != 8 || !strings.Contains(r.Stdout, "powernode-test isn't loaded") {
		t.Errorf("status: exit code %d\n%s", r.Code, r.Stdout)
	}
	s.Shell("cat /usr/share/extra/profile >/sys/kernel/security/apparmor/.load && grep -q '^powernode-test (enforce)' " + list).OK(t)
	for _, args := range [][]string{{"detach", "confined"}, {"attach", "confined"}} {
		if doc, r := s.changed(args...); r.Code != 0 || doc.Outcome != change.WentLive {
			t.Fatalf("%s: exit code %d\n%s%s", r.What, r.Code, r.Stdout, r.Stderr)
		}
	}
	s.active(unit, true)
	if got := s.Shell("cat /proc/$(systemctl show -P MainPID " + unit + ")/attr/current").OK(t); got != "powernode-test (enforce)\n" {
		t.Errorf("the service runs as %q", got)
	}
	if got := s.Shell("cat " + denied + " /run/confined.read").OK(t); !strings.HasPrefix(got, "secret\n") || !strings.Contains(got, "Permission denied") {
		t.Errorf("root and the service read %q", got)
	}
}

// extra is a module that has nothing wrong, with the profile of the other one as the kernel takes it.
func extra(t testing.TB) lab.Module {
	t.Helper()
	packed, err := base64.StdEncoding.DecodeString(appArmorProfile)
	if err != nil {
		t.Fatal(err)
	}
	unpacked, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	profile, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	return lab.Module{Name: "extra", Version: "1", Files: map[string]string{
		"usr/share/extra/page": liveText("what has nothing wrong", "1"), "usr/share/extra/profile": string(profile),
	}}
}

// appArmorProfile is what apparmor_parser -S -Q -K -M /etc/apparmor.d/abi/3.0 (AppArmor 3.0.8) makes of these lines, in gzip and base64: the guests have no
// such program.
//
//	profile powernode-test flags=(attach_disconnected) {
//	  file, capability, network, signal, ptrace, unix,
//	  deny /etc/apparmor-denied r,
//	}
const appArmorProfile = "" +
	"H4sICKV0BGsCA3AuYmluAO2Xe08TQRDAp9drr/RFebeHlCqi8hIRitZHov/wMTQVWiVpaEMbxBAjMTEmxldMjMYo8lEIX0x/e91ruQpUVPwHZvK73d5e73ZmZ/bmzJCsFVary+UVMaxMRsyQVFbLxe" +
	"VSQaxAp1TKjwurK+WlwlStUK2JGZRiKf+wKpYhSPMQMiNSydce3a8PG6Ya+IG0XGdaspivVOfnuMM+wyGzg0eWlhefLD0Qi6fl80vFvAQXwqJl8N76bZqkSPiOyEq5ViwV1tWAT0x9yS1pitmCK2n5" +
	"VYKynwzvrHlakURjzL+T8Vzr3yl6zqvWJwsN1Awszu2dUVIZxbmk7icdWxace7ltgNbSrSIFg/xO6b4Sa1/7T44YB9rvc1dHR1lAr3UIshDT453QBd1wVp9b3OdJPdALfdAPKbWCcAaqMATrOsaeqs" +
	"iBqzALNXgOKpY2YBNewEt4Ba/hDbyFd/AePsBH+ASf4Qt8hW+wBds60o0W+0PS0ejFtL0xbWOvY0E/OkDEJbEhhQ3D2D0iF9AJdESuMO/mSLM3h15HR/Q1blt/lp6Hb1uvSxii2vd+5hlx5lVfhQTe" +
	"Vve10UE8mMZ7GTknF2WSvoGvD1dDZvCrJXFWL35M2tdG08z9PMdRZn1Jxpj/OLOfksvYMa3tsrHLa2EWzck8XJMbnL0JM9xnlvuk9/RP5WSL35NPfnazAFjkmY888qFBNEIbA5UHA04+2zqnbGJuSG" +
	"e2j3w7XKNE3SjXhY9Ru9tomv0nTSalyROlY06+KB13dgalE84OMenk2SSZNs3+M8MOpHYDxRxkya4s2ZVlp8qRYzlyLHcaUCdbQs2i8m7QU08GD6on7cafv+8+c3D7bmsSfe7Yn7K1u9FSx9n/xSGb" +
	"Rmv9ZLfUToZu3frJvS7gzLZZS6m3uqrT1bs+omuNuK6rErqu6tU1k63rkL11i633O79zDGnaabPesJ27tVfv14B5hArT/UII/1IP/nsJ4M+I9qBX6rVnFN/H8GsXsav2/BT+7T/N7794v9rOGvvxvO" +
	"X4PoyPY/g/gX+78G4Pnk81qv4B/f/kbz9J7Sj1COrwnO8+pu8hy4nT2AHfLxHsjGJZAkviWJTExr7TcDjy++QnAjk19UERAAA="

// TestLiveUnits: see unitsThatDoNotStart and confinedByAppArmor.
func TestLiveUnits(t *testing.T) {
	whole(t)
	t.Parallel()
	p := newPlatform(t)
	debianModule(t, p)
	n := p.node("units", "debian")
	n.machine.Append = "systemd.show_status=0 systemd.getty_auto=no"
	s := n.start()
	s.WaitLine(`starting /sbin/init`)
	s.WaitInit()
	s.settled(1)
	s.unitsThatDoNotStart(p)
	s.confinedByAppArmor(p)
	s.PowerOff()
	qemu.Check(t, n.disk)
}
