package boot

import (
	"context"
	"crypto/tls"
	"fmt"
	"runtime"
	"strings"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeclient"
	"github.com/powernode/powernode-agent/internal/ociimage"
)

// fetch asks the platform what to run and brings it into the store. Without the platform, or with
// a module that can't be had, a node that has run before goes on with what ran.
func (b *boot) fetch(ctx context.Context) (string, error) {
	if b.plan.back.Number == 0 {
		err := b.fetchAssigned(ctx)
		if err != nil && ctx.Err() == nil {
			err = b.fallBack(err)
		}
		if err != nil {
			return "", err
		}
	}
	if n := b.plan.back.Number; n != 0 {
		return fmt.Sprintf("nothing; generation %d has %d modules", n, len(b.plan.wanted)), nil
	}
	p := b.facts.Pulled
	return fmt.Sprintf("%d modules, %d of them pulled: %d layers, %d bytes, %d new objects", len(b.plan.wanted), p.Modules, p.Layers, p.Bytes, p.NewObjects), nil
}

// fetchAssigned makes the platform's list the plan once all of it is in the store.
func (b *boot) fetchAssigned(ctx context.Context) error {
	client, err := nodeclient.New(nodeclient.Config{Credentials: b.credentials})
	if err != nil {
		return err
	}
	defer client.Close()
	list, err := client.Modules(ctx)
	if err != nil {
		return err
	}
	if len(list.Modules) == 0 {
		return fault.New(fault.Refuse, fault.Platform, "assign modules to it: powernode assign",
			"the platform has no modules for node %s", b.credentials.InstanceID)
	}
	pinned, err := client.TLSConfig()
	if err != nil {
		return err
	}
	own := strings.TrimPrefix(b.credentials.PlatformURL, "https://")
	own, _, _ = strings.Cut(own, "/")
	registry := ociimage.NewClient(ociimage.Options{
		UserAgent: "powernode-agent",
		// The platform's own registry is behind its CA, and knows the node by its certificate. Any
		// other gets the system's roots and hears nothing of the node's identity.
		TLSFor: func(host string) *tls.Config {
			if host == own {
				return pinned
			}
			return nil
		},
	})
	defer registry.Close()
	fetcher := assemble.Fetcher{
		Store: b.store, Source: registry, Verifier: b.trust.Verifier, Arch: runtime.GOARCH, Now: b.config.Now,
		Progress: func(name string, total int64) (func(int64), func(error)) {
			d := b.config.Progress(name, total)
			return d.Add, d.Done
		},
	}
	wanted := make([]assemble.Wanted, 0, len(list.Modules))
	for _, m := range list.Modules {
		fetched, err := b.fetchModule(ctx, &fetcher, m)
		if err != nil {
			return err
		}
		wanted = append(wanted, fetched.Wanted)
	}
	b.plan.wanted = wanted
	if list.RootDigest != "" {
		if b.plan.expected, err = fsverity.ParseDigest(list.RootDigest); err != nil {
			b.remark("the platform's root digest can't be read: "+err.Error(), "")
		}
	}
	return nil
}

func (b *boot) fetchModule(ctx context.Context, fetcher *assemble.Fetcher, m nodeapi.Module) (assemble.Fetched, error) {
	if err := nodeclient.CheckModule(m); err != nil {
		return assemble.Fetched{}, err
	}
	fetched, err := fetcher.Fetch(ctx, m, &b.plan.fresh)
	if err != nil {
		return fetched, err
	}
	p := &b.facts.Pulled
	if s := fetched.Pulled; s.Layers > 0 {
		p.Modules++
		p.Layers += s.Layers
		p.Bytes += s.Compressed
		p.Objects += s.Objects
		p.NewObjects += s.NewObjects
	}
	return fetched, nil
}
