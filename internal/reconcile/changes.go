package reconcile

import (
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/store"
)

// Update is what an update did, or would do.
type Update struct {
	Outcome Outcome `json:"outcome"`
	DryRun  bool    `json:"dry_run"`
	// From is the current generation and its root digest; 0 where there is none.
	From           uint64          `json:"from_generation"`
	FromRootDigest fsverity.Digest `json:"from_root_digest"`
	// Generation is that of what is wanted, with its root digest; 0 and none in a dry run.
	Generation uint64          `json:"generation,omitempty"`
	RootDigest fsverity.Digest `json:"root_digest"`
	// Expected is the root digest that the platform computed.
	Expected fsverity.Digest `json:"expected_root_digest"`
	Changes  []Change        `json:"changes"`
	// Failed are the modules that can't be used, and what takes their places.
	Failed []Failure `json:"failed,omitempty"`
	Pulled Pulled    `json:"pulled"`
	// Mended are modules that were damaged in the store and are whole again.
	Mended  []string `json:"mended,omitempty"`
	Remarks []string `json:"remarks,omitempty"`
}

// Change is one difference between the current generation and what is wanted.
type Change struct {
	// Kind is "added", "changed" or "removed".
	Kind string `json:"change"`
	Name string `json:"name"`
	// From and To are versions, with the digests of their manifests. The versions may be the same: of
	// a module that was built again, or got another priority.
	From       string `json:"from_version,omitempty"`
	To         string `json:"to_version,omitempty"`
	FromDigest string `json:"from_digest,omitempty"`
	ToDigest   string `json:"to_digest,omitempty"`
	// Size is what its layers have, compressed, in bytes, where they aren't in the store; only a dry run tells.
	Size int64 `json:"to_pull_bytes,omitempty"`
}

// Failure is a module that can't be used.
type Failure struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Reason  string `json:"reason"`
	// Kept is the version that stays in its place; "" where the module is new, and so left out.
	Kept string `json:"kept_version,omitempty"`
}

// compare says what is different from the current generation.
func (u *Update) compare(current store.Generation, parts []part) {
	u.Changes = []Change{}
	byID := make(map[string]store.GenerationModule, len(current.Modules))
	for _, m := range current.Modules {
		byID[m.ID] = m
	}
	for _, p := range parts {
		was, ok := byID[p.want.ID]
		delete(byID, p.want.ID)
		if ok && was == p.record() {
			continue
		}
		c := Change{Kind: "added", Name: p.want.Name, To: p.want.Version, ToDigest: p.want.ManifestDigest}
		if ok {
			c.Kind, c.From, c.FromDigest = "changed", was.Version, was.ManifestDigest
		}
		if p.offer != nil && !p.offer.Here && u.DryRun {
			c.Size = p.offer.Size
		}
		u.Changes = append(u.Changes, c)
	}
	for _, m := range current.Modules {
		if _, gone := byID[m.ID]; gone {
			u.Changes = append(u.Changes, Change{Kind: "removed", Name: m.Name, From: m.Version, FromDigest: m.ManifestDigest})
		}
	}
}
