package ociimage

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/tree"
)

// PullOptions says where a pull's bytes go.
type PullOptions struct {
	// Sink takes the contents; layers write to it at the same time.
	Sink layer.Sink
	// Partials keeps half layers between runs; nil keeps none.
	Partials Partials
	// Limits bounds the layers' contents; the zero value means layer.DefaultLimits.
	Limits layer.Limits
	// Parallel is how many layers are read at a time; 0 means 3.
	Parallel int
	// Progress is called with the bytes that layer index has come to, of how many; nil for no
	// calls. It is called from several goroutines, and often: it must be quick.
	Progress func(index int, done, total int64)
}

// Stats says what a pull moved.
type Stats struct {
	layer.Stats
	// Layers are the different layers that were read.
	Layers int
	// Resumed is how many of the compressed bytes were there from an earlier attempt.
	Resumed int64
}

// Pull reads an image's layers into the sink and merges them. The tree is as the layers have it;
// Canonical makes it the one that is sealed. What was committed to the sink before an error stays
// there without being referred to.
func Pull(ctx context.Context, from Source, image *Image, o PullOptions) (*tree.Node, Stats, error) {
	if o.Limits == (layer.Limits{}) {
		o.Limits = layer.DefaultLimits()
	}
	if o.Parallel <= 0 {
		o.Parallel = 3
	}
	p := &puller{PullOptions: o, from: from, image: image, reader: layer.NewReader(o.Sink, o.Limits)}
	root, stats, err := p.pull(ctx)
	if err != nil {
		return nil, Stats{}, fmt.Errorf("pull image %s: %w", image.Digest, err)
	}
	return root, stats, nil
}

type puller struct {
	PullOptions
	from   Source
	image  *Image
	reader *layer.Reader
}

func (p *puller) pull(ctx context.Context) (*tree.Node, Stats, error) {
	layers := make([]*layer.Layer, len(p.image.Layers))
	resumed := make([]int64, len(p.image.Layers))
	// Builders repeat layers, the empty one above all.
	first := make(map[layer.Descriptor]int)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(p.Parallel)
	for i, d := range p.image.Layers {
		if _, ok := first[d]; ok {
			continue
		}
		first[d] = i
		group.Go(func() (err error) {
			layers[i], resumed[i], err = p.layer(ctx, i, d)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, Stats{}, err
	}
	stats := Stats{Layers: len(first)}
	for i, d := range p.image.Layers {
		if j := first[d]; j != i {
			layers[i] = layers[j]
			continue
		}
		stats.Add(layers[i].Stats)
		stats.Resumed += resumed[i]
	}
	root, err := layer.Merge(layers...)
	return root, stats, err
}

// layer reads one layer, from where an earlier attempt stopped if there was one.
func (p *puller) layer(ctx context.Context, index int, d layer.Descriptor) (*layer.Layer, int64, error) {
	if p.Partials == nil || !p.from.resumable() || d.Size < partialMin {
		l, err := p.read(ctx, index, d, nil)
		return l, 0, err
	}
	partial, err := p.Partials.Partial(string(d.Digest))
	if err != nil {
		return nil, 0, err
	}
	if partial.Size() > d.Size {
		if err := partial.Reset(); err != nil {
			return nil, 0, errors.Join(err, partial.Close())
		}
	}
	resumed := partial.Size()
	l, err := p.read(ctx, index, d, partial)
	if resumed > 0 && isDamage(err) {
		// Perhaps the beginning was damaged while it lay here, by a power cut for one.
		if err := partial.Reset(); err != nil {
			return nil, 0, errors.Join(err, partial.Close())
		}
		resumed = 0
		l, err = p.read(ctx, index, d, partial)
	}
	if err != nil && !isDamage(err) {
		return nil, 0, errors.Join(err, partial.Close())
	}
	return l, resumed, errors.Join(err, partial.Drop())
}

// isDamage says that the bytes themselves were wrong, so that keeping them helps nobody.
func isDamage(err error) bool {
	return err != nil && fault.KindOf(err) == fault.Refuse && fault.AreaOf(err) == fault.Verify
}

// read reads a layer's stream: what partial has, then the rest, which goes to partial too.
func (p *puller) read(ctx context.Context, index int, d layer.Descriptor, partial Partial) (*layer.Layer, error) {
	var offset int64
	if partial != nil {
		offset = partial.Size()
	}
	body, err := p.from.openLayer(ctx, p.image, d, offset)
	if err != nil {
		return nil, err
	}
	defer body.Close() //nolint:errcheck // only read from
	stream := io.Reader(body)
	if partial != nil {
		stream = io.MultiReader(io.NewSectionReader(partial, 0, offset), &keeper{r: body, partial: partial})
	}
	if p.Progress != nil {
		p.Progress(index, 0, d.Size)
		stream = &counter{r: stream, report: func(done int64) { p.Progress(index, done, d.Size) }}
	}
	return p.reader.Read(ctx, d, stream)
}
