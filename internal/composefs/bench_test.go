package composefs_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/powernode/powernode-agent/internal/composefs"
	"github.com/powernode/powernode-agent/internal/composefs/composefstest"
)

const benchEntries = 60_000

func BenchmarkWrite(b *testing.B) {
	root := composefstest.Tree(benchEntries)
	b.ReportAllocs()
	for b.Loop() {
		if err := composefs.Write(io.Discard, root, composefs.V1); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDigest(b *testing.B) {
	root := composefstest.Tree(benchEntries)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := composefs.Digest(root, composefs.V1); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	image, _, err := composefs.Build(composefstest.Tree(benchEntries), composefs.V1)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(image)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := composefs.Read(bytes.NewReader(image), int64(len(image))); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadDump(b *testing.B) {
	var dump bytes.Buffer
	if err := composefs.WriteDump(&dump, composefstest.Tree(benchEntries)); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(dump.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := composefs.ReadDump(bytes.NewReader(dump.Bytes()), composefs.Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}
