package platform_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/nodeclient"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
	"github.com/powernode/powernode-agent/internal/secret"
)

// TestAgentSide lets the agent's own packages speak with the platform: enroll, list, pull, report.
func TestAgentSide(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	m := p.Publish(platformtest.Module{Name: "base", Version: "1.0", Files: map[string]string{"usr/bin/x": strings.Repeat("x", 50_000)}})
	p.Publish(platformtest.Module{Name: "other", Version: "1.0", Files: map[string]string{"usr/y": "y"}})
	if _, err := p.Operator.CreateNode(ctx, operatorapi.NodeCreate{Name: "web-1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Operator.Assign(ctx, "web-1", operatorapi.AssignmentCreate{Module: "base"}); err != nil {
		t.Fatal(err)
	}
	token, err := p.Operator.CreateToken(ctx, "web-1", operatorapi.TokenCreate{})
	if err != nil {
		t.Fatal(err)
	}
	ensure := func(dir, token string) (*enroll.Credentials, error) {
		bootstrap := enroll.Bootstrap{PlatformURL: p.URL, CAPEM: []byte(p.Config.CAPEM), Token: secret.New(token)}
		credentials, _, err := enroll.Ensure(ctx, enroll.Options{
			Dir: dir, AgentVersion: "v1", Architecture: "amd64",
			Discover: func(context.Context) (enroll.Bootstrap, error) { return bootstrap, nil },
		})
		return credentials, err
	}
	dir := filepath.Join(t.TempDir(), "credentials")
	credentials, err := ensure(dir, token.Token)
	if err != nil {
		t.Fatal(err)
	}
	if credentials.InstanceID != token.NodeID {
		t.Errorf("enrolled as %s, want %s", credentials.InstanceID, token.NodeID)
	}
	// Another machine with the used token is refused, once and for all.
	if _, err := ensure(filepath.Join(t.TempDir(), "elsewhere"), token.Token); fault.KindOf(err) != fault.Refuse || fault.HintOf(err) == "" {
		t.Errorf("a used token: %v (%s, hint %q)", err, fault.KindOf(err), fault.HintOf(err))
	}

	client, err := nodeclient.New(nodeclient.Config{Credentials: credentials})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	list, err := client.Modules(ctx)
	if err != nil || list.Count != 1 || len(list.RootDigest) != 64 {
		t.Fatalf("%+v, %v", list, err)
	}
	if err := nodeclient.CheckModule(list.Modules[0]); err != nil {
		t.Error(err)
	}
	hb := heartbeat()
	hb.RootDigest = list.RootDigest
	if _, err := client.Heartbeat(ctx, hb); err != nil {
		t.Error(err)
	}

	tlsConfig, err := client.TLSConfig()
	if err != nil {
		t.Fatal(err)
	}
	registry := ociimage.NewClient(ociimage.Options{TLS: tlsConfig})
	defer registry.Close()
	reference, err := ociimage.ParseReference(list.Modules[0].Repository + "@" + list.Modules[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	image, err := registry.Resolve(ctx, reference, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if seal, err := image.Seal(); err != nil || seal.String() != m.Images[0].Seal {
		t.Errorf("seal %s, %v", seal, err)
	}
	if _, err := registry.Attached(ctx, image); err != nil {
		t.Errorf("signatures: %v", err)
	}
	root, _, err := ociimage.Pull(ctx, registry, image, ociimage.PullOptions{Sink: layer.Discard{}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ociimage.Seal(root); err != nil || got.String() != m.Images[0].Seal {
		t.Errorf("the seal of what was pulled is %s, %v", got, err)
	}
	reference.Repository = strings.Replace(reference.Repository, "/base", "/other", 1)
	if _, err := registry.Resolve(ctx, reference, "amd64"); err == nil {
		t.Error("a repository that isn't assigned was read")
	}
}
