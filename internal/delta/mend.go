package delta

import (
	"context"

	"github.com/powernode/powernode-agent/internal/tree"
)

// Mended is what Mend leaves.
type Mended struct {
	// Doubts are the paths of which nothing shows which of the two images they refer to. Nothing was done to them.
	Doubts []string
	// Troubles are those that refer to the old image for certain, and couldn't be given its content.
	Troubles []Trouble
}

// Mend looks at what was changed over the old image, from, between the last Settle and the moment when the new one, to, came beneath the
// upper: a metacopy then shows what the new image has. View is of the running root, over the new image.
//
// A file that shows by itself which image it was made over gets that one's content back, from the object store, and takes its own
// place at once: who has it open keeps what he has. Of a file with several names each becomes one by itself. Mend looks again until nothing is
// left to be done. What it can't tell it doesn't touch. After a Settle from the same image, such a doubt came since, over one of the
// two: who can go back does so, where it is right, or else settled, and tries again. A Mend that ends without doubts or troubles
// proves that whatever comes to refer to what differs after it does so over the new image, but for what somebody goes on with in an old tree.
func (l Live) Mend(ctx context.Context, from, to *tree.Node, covered []string) (Mended, error) {
	a := l.actor(ctx)
	defer a.close()
	var m Mended
	for pass := range settlePasses {
		d, err := a.scan()
		if err != nil {
			return m, err
		}
		var steps []*place
		m = Mended{}
		d = d.Without(covered...)
		for _, t := range d.Skipped {
			m.Doubts = append(m.Doubts, t.Path)
		}
		for _, p := range places(d, from, to, nil) {
			switch {
			case p.doubtful():
				m.Doubts = append(m.Doubts, p.Path)
			case p.provenOld():
				steps = append(steps, p)
			}
		}
		if len(steps) == 0 && pass == 0 {
			return m, nil
		}
		if len(steps) == 0 {
			_, err := a.finish()
			return m, err
		}
		for _, p := range steps {
			if err := a.settle(p.Path, a.restore(p)); err != nil {
				return m, err
			}
		}
		if len(a.troubles) > 0 {
			break
		}
	}
	if m.Troubles = a.troubles; len(m.Troubles) == 0 {
		m.Troubles = []Trouble{{"/", "files are changed again and again"}}
	}
	_, err := a.finish()
	return m, err
}

// has reports whether there is a metacopy's own content.
func (l Live) has(p *place) bool {
	if l.Objects == nil {
		return false
	}
	f, err := l.Objects.OpenObject(p.Digest)
	if err != nil {
		return false
	}
	f.Close()
	return true
}
