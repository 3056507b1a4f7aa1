package platform_test

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeclient"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
	"github.com/powernode/powernode-agent/internal/secret"
	"github.com/powernode/powernode-agent/internal/tpmkey"
	"github.com/powernode/powernode-agent/internal/tpmkey/tpmtest"
)

// tpmNode is a node whose key is in a TPM: its credentials, its TPM and its token.
type tpmNode struct {
	t     *testing.T
	p     *platformtest.Platform
	dir   string
	kind  enroll.KeyKind
	tpm   string
	token string
}

func (n *tpmNode) newToken() {
	n.t.Helper()
	token, err := n.p.Operator.CreateToken(n.t.Context(), "web-1", operatorapi.TokenCreate{})
	if err != nil {
		n.t.Fatal(err)
	}
	n.token = token.Token
}

func (n *tpmNode) ensure(now bool) (*enroll.Credentials, enroll.Situation, error) {
	n.t.Helper()
	b := enroll.Bootstrap{PlatformURL: n.p.URL, CAPEM: []byte(n.p.Config.CAPEM), Token: secret.New(n.token)}
	return enroll.Ensure(n.t.Context(), enroll.Options{
		Dir: n.dir, KeyKind: n.kind, TPM: enroll.TPMAt(n.tpm), Now: now, AgentVersion: "v1", Architecture: "amd64",
		Discover: func(context.Context) (enroll.Bootstrap, error) { return b, nil },
	})
}

// works has the node get credentials in that situation, and speak with the platform by them.
func (n *tpmNode) works(now bool, want enroll.Situation) *enroll.Credentials {
	n.t.Helper()
	c, situation, err := n.ensure(now)
	if err != nil || situation != want {
		n.t.Fatalf("%v, want %v: %v", situation, want, err)
	}
	client, err := nodeclient.New(nodeclient.Config{Credentials: c})
	if err != nil {
		n.t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Heartbeat(n.t.Context(), heartbeat()); err != nil {
		n.t.Errorf("a heartbeat: %v", err)
	}
	if _, inTPM := c.Leaf.PublicKey.(*ecdsa.PublicKey); inTPM != (c.KeyKind() == enroll.TPMKey) {
		n.t.Errorf("a key of kind %s with a certificate for a %T", c.KeyKind(), c.Leaf.PublicKey)
	}
	return c
}

// TestKeyInATPM is the life of a node's key in a real TPM, in software, with the real platform.
func TestKeyInATPM(t *testing.T) {
	p := platformtest.Start(t)
	if _, err := p.Operator.CreateNode(t.Context(), operatorapi.NodeCreate{Name: "web-1"}); err != nil {
		t.Fatal(err)
	}
	tpm, other := tpmtest.New(t), tpmtest.New(t)
	n := &tpmNode{t: t, p: p, dir: filepath.Join(t.TempDir(), "credentials"), kind: enroll.TPMKey, tpm: filepath.Join(t.TempDir(), "none")}
	n.newToken()
	if _, _, err := n.ensure(false); fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Policy || !strings.Contains(err.Error(), "this machine shows none") || fault.HintOf(err) == "" {
		t.Errorf("without a TPM: %v", err)
	}

	n.tpm = tpm.Device
	first := n.works(false, enroll.None)
	tpm.PowerCycle()
	if again := n.works(false, enroll.Valid); !again.Leaf.Equal(first.Leaf) {
		t.Error("a power cycle gave it another certificate")
	}
	second := n.works(true, enroll.Valid)
	if second.Leaf.Equal(first.Leaf) || second.Leaf.PublicKey.(*ecdsa.PublicKey).Equal(first.Leaf.PublicKey) {
		t.Error("the rotation gave the same certificate, or one for the same key")
	}

	// The disk in another machine. The token is used, and whoever has the disk has no other.
	n.tpm = other.Device
	_, situation, err := n.ensure(false)
	if situation != enroll.KeyAway || fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "the key isn't this TPM's") || !strings.Contains(fault.HintOf(err), "powernode token create") {
		t.Errorf("with another TPM: %v, %v (hint %q)", situation, err, fault.HintOf(err))
	}
	n.tpm = tpm.Device
	if back := n.works(false, enroll.Valid); !back.Leaf.Equal(second.Leaf) {
		t.Error("the attempt elsewhere cost it its certificate")
	}

	tpm.Clear()
	if _, situation, err = n.ensure(false); situation != enroll.KeyAway || !errors.Is(err, tpmkey.ErrForeign) && !strings.Contains(err.Error(), "cleared since") {
		t.Errorf("with a cleared TPM: %v, %v", situation, err)
	}
	n.newToken()
	n.works(false, enroll.KeyAway)
	n.works(false, enroll.Valid)
}

// TestKeyInATPMIfPresent: the key goes where it can.
func TestKeyInATPMIfPresent(t *testing.T) {
	p := platformtest.Start(t)
	if _, err := p.Operator.CreateNode(t.Context(), operatorapi.NodeCreate{Name: "web-1"}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		tpm  string
		want enroll.KeyKind
	}{
		"no TPM": {filepath.Join(t.TempDir(), "none"), enroll.FileKey},
		"a TPM":  {tpmtest.New(t).Device, enroll.TPMKey},
	} {
		n := &tpmNode{t: t, p: p, dir: filepath.Join(t.TempDir(), "credentials"), kind: enroll.TPMKeyIfPresent, tpm: c.tpm}
		n.newToken()
		if got := n.works(false, enroll.None).KeyKind(); got != c.want {
			t.Errorf("%s: the key is of kind %s, want %s", name, got, c.want)
		}
	}
}
