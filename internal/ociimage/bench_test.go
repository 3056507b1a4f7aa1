package ociimage

import (
	"context"
	"testing"

	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/store"
)

// BenchmarkPull measures a pull of three layers of 32 MiB that don't compress, from a registry on
// loopback: into nothing, and into a store that is emptied each time, with half layers kept.
func BenchmarkPull(b *testing.B) {
	ctx := context.Background()
	c := newClient(b, Options{})
	ref, _, _ := push(b, c, serve(b, newRegistry(b, true)), 32<<20)
	image, err := c.Resolve(ctx, ref, "amd64")
	if err != nil {
		b.Fatal(err)
	}
	b.Run("discard", func(b *testing.B) {
		b.SetBytes(image.Size())
		for b.Loop() {
			if _, _, err := Pull(ctx, c, image, PullOptions{Sink: layer.Discard{}}); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, keep := range []bool{false, true} {
		name := map[bool]string{false: "store", true: "store-and-partials"}[keep]
		b.Run(name, func(b *testing.B) {
			b.SetBytes(image.Size())
			for b.Loop() {
				b.StopTimer()
				st, err := store.Open(b.TempDir(), store.Options{})
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				o := PullOptions{Sink: layer.SinkFunc(func(n int64) (layer.ObjectWriter, error) { return st.NewObject(n) })}
				if keep {
					o.Partials = PartialsFunc(func(digest string) (Partial, error) { return st.Partial(digest) })
				}
				if _, _, err := Pull(ctx, c, image, o); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				st.Close()
				b.StartTimer()
			}
		})
	}
}
