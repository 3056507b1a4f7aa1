package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/catalog"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// rooted is a catalog whose roots say of how many modules they are, and which architecture.
type rooted struct{ asked int }

func (*rooted) Register(context.Context, catalog.Registration) (db.Module, error) {
	return db.Module{}, nil
}

func (c *rooted) ExpectedRoot(_ context.Context, architecture string, modules []db.Module) (db.Root, error) {
	c.asked++
	return db.Root{Digest: fsverity.Digest{byte(len(modules)), architecture[1]}}, nil
}

// TestListOfManyNodes: what the modules of many nodes amount to is looked up once for all that have the same.
func TestListOfManyNodes(t *testing.T) {
	ctx := t.Context()
	d, err := db.Open(ctx, db.Options{Path: t.TempDir() + "/platform.db", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	var modules []db.Module
	for i := range 2 {
		m, err := d.Register(ctx, db.Module{
			Name: fmt.Sprint("m-", i), Variety: "config", Version: "1", Repository: "r", Digest: fmt.Sprint(i), Images: []db.Image{{Architecture: db.AnyArchitecture}},
		})
		if err != nil {
			t.Fatal(err)
		}
		modules = append(modules, m)
	}
	const nodes = 60
	want := map[string]string{}
	for i := range nodes {
		architecture := []string{"amd64", "amd64", "arm64"}[i%3]
		n, err := d.CreateNode(ctx, fmt.Sprint("n-", i), architecture)
		if err != nil {
			t.Fatal(err)
		}
		its := modules[:i%2+1]
		if i == 0 {
			its = nil
		}
		for _, m := range its {
			if err := d.Assign(ctx, n.ID, m, nil); err != nil {
				t.Fatal(err)
			}
		}
		if len(its) > 0 {
			want[n.Name] = fsverity.Digest{byte(len(its)), architecture[1]}.String()
		}
	}
	modulesOf := &rooted{}
	a := New(Options{DB: d, Catalog: modulesOf, Logger: slog.New(slog.DiscardHandler), Now: time.Now})
	data, err := a.listNodes(nil, httptest.NewRequestWithContext(ctx, http.MethodGet, operatorapi.PathNodes, nil))
	if err != nil {
		t.Fatal(err)
	}
	list := data.(operatorapi.NodeList)
	for _, n := range list.Nodes {
		if n.ExpectedRootDigest != want[n.Name] {
			t.Errorf("%s: %q, want %q", n.Name, n.ExpectedRootDigest, want[n.Name])
		}
	}
	if list.Count != nodes || modulesOf.asked != 4 {
		t.Errorf("%d nodes, looked up %d times", list.Count, modulesOf.asked)
	}
}
