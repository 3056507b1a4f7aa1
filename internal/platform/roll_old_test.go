package platform_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// oldPlatform is one whose authority was made before authorities could roll: it can't sign others.
func oldPlatform(t *testing.T) *platformtest.Platform {
	t.Helper()
	p := platformtest.Start(t)
	p.Stop()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: new(big.Int).Lsh(big.NewInt(0x5eed0001), 90), Subject: pkix.Name{CommonName: "Powernode platform CA 5eed0001"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	unit := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})...)
	if err := os.WriteFile(filepath.Join(p.Dir, "ca", "authority.pem"), unit, 0o600); err != nil {
		t.Fatal(err)
	}
	if p.Database() != nil {
		execute(t, p, "DELETE FROM authorities") // it belongs to the one that the platform began with
	}
	return p.Restart()
}

// TestCARollFromOldAuthority rolls from an authority that can't vouch for the next one: nobody is lost before it is
// retired, and that is refused as long as a node is off that would be, expired or not.
func TestCARollFromOldAuthority(t *testing.T) {
	p := oldPlatform(t)
	ctx := t.Context()
	on, off := newAgent(t, p, "on"), newAgent(t, p, "off")
	off.settle()
	for _, change := range []func(context.Context) (operatorapi.CAList, error){p.Operator.PrepareCA, p.Operator.ActivateCA} {
		if _, err := change(ctx); err != nil {
			t.Fatal(err)
		}
		on.settle()
		// A new process of the other one asks for the time, and for nothing else.
		if err := off.keeper.Prepare(ctx); err != nil {
			t.Error(err)
		}
	}
	wantAuthorities(t, p, "trusted+ active+")
	if list, _ := authorities(t, p); !list.Authorities[0].Presents || list.Authorities[1].CrossSignedBy != "" {
		t.Errorf("%+v", list.Authorities)
	}
	for range 2 {
		p.Clock.Advance(50 * 24 * time.Hour)
		if err := on.keeper.Rotate(ctx); err != nil {
			t.Fatal(err)
		}
		on.settle()
	}
	wantAuthorities(t, p, "trusted active+")
	_, err := p.Operator.RetireCA(ctx, operatorapi.CARetire{})
	if err == nil || !strings.Contains(err.Error(), "needed by 1 nodes: off (its last heartbeat") {
		t.Errorf("%v", err)
	}
	const lost = "1 node hasn't told of trusting the present bundle, and nothing leads from authority"
	if hint := fault.HintOf(err); !strings.Contains(hint, "with --force: 0 nodes hold") || !strings.Contains(hint, lost) {
		t.Errorf("%s", hint)
	}
	list, err := p.Operator.RetireCA(ctx, operatorapi.CARetire{Force: true})
	if err != nil || len(list.Attention) != 1 || !strings.Contains(list.Attention[0], lost) {
		t.Fatalf("%q, %v", list.Attention, err)
	}
	p = p.Restart()
	on.p, off.p = p, p
	on.settle()
	if err := off.keeper.Renew(ctx); err == nil || !strings.Contains(err.Error(), "isn't signed by the CA that this node trusts") {
		t.Errorf("%v", err)
	}
}

// TestOffWhileOldAuthorityRolled: who was off, until the certificate ended, and who enrolls by an image with the old
// authority alone, get certificates of the new one, which nothing leads to, and follow.
func TestOffWhileOldAuthorityRolled(t *testing.T) {
	p := oldPlatform(t)
	ctx := t.Context()
	off, old := newAgent(t, p, "off"), p.Config.CAPEM
	off.settle()
	for _, change := range []func(context.Context) (operatorapi.CAList, error){p.Operator.PrepareCA, p.Operator.ActivateCA} {
		if _, err := change(ctx); err != nil {
			t.Fatal(err)
		}
	}
	newAgentBy(t, p, "late", old).settle()
	p.Clock.Advance(91 * 24 * time.Hour)
	if err := off.keeper.Renew(ctx); err != nil {
		t.Fatal(err)
	}
	off.settle()
	if list, _ := authorities(t, p); len(list.Behind) != 0 {
		t.Errorf("%+v", list.Behind)
	}
	if _, err := p.Operator.RetireCA(ctx, operatorapi.CARetire{}); err != nil {
		t.Error(err)
	}
}
