package layer

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/tree"
)

// benchTree looks like an operating system: many small files, some large ones, content that
// compresses to about a third.
func benchTree(sink *memorySink) (*tree.Node, int64) {
	rng := rand.New(rand.NewPCG(1, 2))
	words := make([][]byte, 4096)
	for i := range words {
		words[i] = []byte(fmt.Sprintf("%x ", rng.Uint64()>>rng.IntN(48)))
	}
	root := tree.NewDir(0o755)
	var total int64
	for d := range 200 {
		dir := tree.NewDir(0o755)
		root.SetChild(fmt.Sprintf("dir%d", d), dir)
		for i := range 10 {
			size := 1 << rng.IntN(15)
			if i == 0 {
				size = 512 << 10
			}
			content := make([]byte, 0, size+32)
			for len(content) < size {
				content = append(content, words[rng.IntN(len(words))]...)
			}
			n := &tree.Node{Kind: tree.Regular, Mode: 0o644, Size: uint64(len(content)), Digest: fsverity.SumBytes(content)}
			if len(content) <= tree.InlineMax {
				n.Inline, n.Digest = content, fsverity.Digest{}
			} else {
				sink.objects[n.Digest] = content
			}
			dir.SetChild(fmt.Sprintf("file%d", i), n)
			total += int64(len(content))
		}
	}
	return root, total
}

// BenchmarkRead measures a layer into a Sink that keeps nothing: decompression, tar, compressed
// and uncompressed sha256 and fs-verity. MB/s are of uncompressed bytes.
func BenchmarkRead(b *testing.B) {
	sink := newMemorySink()
	root, total := benchTree(sink)
	var zst bytes.Buffer
	if _, err := Write(context.Background(), &zst, root, WriteOptions{Open: sink.content}); err != nil {
		b.Fatal(err)
	}
	stream, err := decompressAll(zst.Bytes())
	if err != nil {
		b.Fatal(err)
	}
	for _, mediaType := range []string{MediaTypeTar, MediaTypeTarGzip, MediaTypeTarZstd} {
		blob, d := pack(b, stream, mediaType)
		b.Run(mediaType[len(MediaTypeTar)-3:], func(b *testing.B) {
			b.SetBytes(total)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := NewReader(Discard{}, DefaultLimits()).Read(context.Background(), d, bytes.NewReader(blob)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func decompressAll(blob []byte) ([]byte, error) {
	r, err := decompress(bufio.NewReader(bytes.NewReader(blob)), zstandard)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func BenchmarkWrite(b *testing.B) {
	sink := newMemorySink()
	root, total := benchTree(sink)
	b.SetBytes(total)
	for b.Loop() {
		if _, err := Write(context.Background(), io.Discard, root, WriteOptions{Open: sink.content}); err != nil {
			b.Fatal(err)
		}
	}
}
