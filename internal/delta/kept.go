package delta

import (
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/tree"
)

// SettleKept is Settle for an upper that outlived a boot, before it comes over the image whose tree is to. from is the image
// that it was used over; a little of what it holds may have been made over others, by whoever went on in an old tree after
// a live change, or because a power cut came in the middle of one. A metacopy whose mark says a digest is judged by that:
// it gets that content wherever the new image has another, if the object store has it. Such a one without a digest shows
// what the new image has.
func SettleKept(d *Delta, from, to *tree.Node, has func(fsverity.Digest) bool) *Plan {
	return settle(d, from, to, nil, func(p *place) bool {
		if p.Kind != Metacopy {
			return true
		}
		if p.Digest.IsZero() {
			return p.newContent()
		}
		if p.newSource != nil && p.newSource.Digest == p.Digest {
			return false
		}
		return p.source != nil && p.source.Digest == p.Digest || has(p.Digest)
	})
}
