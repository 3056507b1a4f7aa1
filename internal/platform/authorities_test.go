package platform_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// TestRetireSaysWhatItDoes: who is told to use --force learns before, and after, how many nodes lose their certificate
// and what the policy makes of them.
func TestRetireSaysWhatItDoes(t *testing.T) {
	for policy, want := range map[string]string{
		"never":    "under --renew-expired never they can't renew: a new token for each",
		"approval": "under --renew-expired approval they wait for powernode node approve",
		"always":   "under --renew-expired always they renew their own",
		"5d":       "under --renew-expired 5d they renew their own when coming back within that time, and wait for powernode node approve after it",
	} {
		t.Run(policy, func(t *testing.T) {
			parsed, err := platform.ParseRenewPolicy(policy)
			if err != nil {
				t.Fatal(err)
			}
			p := platformtest.StartWith(t, platform.Options{RenewExpired: parsed})
			ctx := t.Context()
			node := p.Enroll("web-1", "amd64")
			p.Enroll("web-2", "amd64")
			if _, err := p.Operator.PrepareCA(ctx); err != nil {
				t.Fatal(err)
			}
			if list, err := p.Operator.ActivateCA(ctx); err != nil || list.Attention != nil {
				t.Fatalf("%q, %v", list.Attention, err)
			}
			p.Enroll("web-3", "amd64")
			_, err = p.Operator.RetireCA(ctx, operatorapi.CARetire{})
			wants(t, fault.HintOf(err), "with --force: 2 nodes hold a certificate by authority", "which ends with it; "+want)
			list, err := p.Operator.RetireCA(ctx, operatorapi.CARetire{Force: true})
			if err != nil || len(list.Attention) != 1 {
				t.Fatalf("%q, %v", list.Attention, err)
			}
			wants(t, list.Attention[0], "2 nodes hold a certificate", want)
			wants(t, strings.Join(events(t, p, "ca.retired"), "\n"), "by force: 2 nodes hold", want)
			a := p.Renew(node, p.Key())
			var renewed nodeapi.RenewResponse
			if a.Status == http.StatusOK {
				a.Into(&renewed)
			}
			switch got := string(renewed.Status) + string(a.Envelope.Code); {
			case policy == "never" && got != string(nodeapi.CodeRenewalRefused),
				policy == "approval" && got != string(nodeapi.RenewWaiting),
				policy == "always" && got != string(nodeapi.RenewIssued),
				policy == "5d" && got != string(nodeapi.RenewIssued):
				t.Errorf("%s", got)
			}
		})
	}
}

// TestAuthoritiesOlderThanTheDatabase: the record of the authorities comes back from before the present one. The
// platform says so, goes on for whom it can, and takes the key up again.
func TestAuthoritiesOlderThanTheDatabase(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	early := p.Enroll("early", "amd64")
	if _, err := p.Operator.PrepareCA(ctx); err != nil {
		t.Fatal(err)
	}
	prepared, err := p.Operator.ActivateCA(ctx)
	if err != nil {
		t.Fatal(err)
	}
	late := p.Enroll("late", "amd64")
	p.Stop()
	file := filepath.Join(p.Dir, "ca", "authorities.json")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var record struct {
		Version     int              `json:"version"`
		Authorities []map[string]any `json:"authorities"`
	}
	if err := json.Unmarshal(text, &record); err != nil {
		t.Fatal(err)
	}
	record.Authorities = record.Authorities[:1]
	record.Authorities[0]["state"] = "active"
	if text, err = json.Marshal(record); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	lost := prepared.Authorities[1].ID
	var said bytes.Buffer
	o := options(t, p.Dir)
	o.Database = p.Database()
	o.Logger = slog.New(slog.NewTextHandler(&said, nil))
	reopen(t, o)
	wants(t, said.String(), "level=WARN", "the certificate authority needs attention", lost, "powernode ca prepare --take-up "+lost)

	p = p.Restart()
	list, err := p.Operator.CA(ctx)
	if err != nil || len(list.Attention) != 1 {
		t.Fatalf("%q, %v", list.Attention, err)
	}
	wants(t, list.Attention[0], "1 node holds certificates of Powernode platform CA "+lost, "older than they are", "powernode ca prepare --take-up "+lost+", then powernode ca activate")
	if code := works(p, early); code != "" {
		t.Errorf("who doesn't need it: %s", code)
	}
	// One that trusts the older authority gets a certificate by that, as it is on file.
	key := p.Key()
	next := p.With(late, issued(t, p.Renew(late, key)).CertPEM, key)
	if code := works(p, next); code != "" {
		t.Errorf("%s", code)
	}
	// Nobody holds anything by it any more; the key is there still.
	if list, err = p.Operator.CA(ctx); err != nil || len(list.Attention) != 1 {
		t.Fatalf("%q, %v", list.Attention, err)
	}
	wants(t, list.Attention[0], "doesn't name the key in ca/authority-"+lost+".pem", "--take-up "+lost, "remove the file")
	if _, err := p.Operator.TakeUpCA(ctx, "00000000"); err == nil || !strings.Contains(err.Error(), "there is no key") {
		t.Errorf("%v", err)
	}
	if list, err = p.Operator.TakeUpCA(ctx, lost); err != nil || len(list.Attention) != 0 || list.Authorities[1].State != operatorapi.AuthorityPrepared {
		t.Fatalf("%+v, %v", list, err)
	}
	if list, err = p.Operator.ActivateCA(ctx); err != nil || list.Authorities[1].ID != lost || list.Authorities[1].CrossSignedBy != list.Authorities[0].ID {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, node := range []*platformtest.Node{early, next} {
		if code := works(p, node); code != "" {
			t.Errorf("%s: %s", node.Name, code)
		}
	}
	wants(t, strings.Join(events(t, p, "ca.prepared"), "\n"), "authority "+lost+" is taken up")

	// Without the key, only the certificates tell.
	p.Enroll("later", "amd64")
	p.Stop()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(p.Dir, "ca", "authority-"+lost+".pem")); err != nil {
		t.Fatal(err)
	}
	p = p.Restart()
	if list, err = p.Operator.CA(ctx); err != nil || len(list.Attention) != 1 {
		t.Fatalf("%q, %v", list.Attention, err)
	}
	wants(t, list.Attention[0], "1 node holds certificates of Powernode platform CA "+lost, "restore the directory ca of the time of the database")
}
