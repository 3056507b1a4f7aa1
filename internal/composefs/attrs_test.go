package composefs

import (
	"crypto/sha256"
	"testing"

	"github.com/powernode/powernode-agent/internal/fsverity"
)

func TestAppendObjectPath(t *testing.T) {
	var all fsverity.Digest
	for i := range 256 {
		for at := range all {
			all[at] = byte(i + at)
		}
		for _, d := range []fsverity.Digest{all, sha256.Sum256([]byte{byte(i)})} {
			if got, want := string(appendObjectPath([]byte("/"), d)), "/"+d.ObjectPath(); got != want {
				t.Fatalf("got  %s\nwant %s", got, want)
			}
			if back, ok := parseObjectPath(d.ObjectPath()); !ok || back != d {
				t.Fatalf("%s is read as %s, %v", d, back, ok)
			}
		}
	}
}

func BenchmarkAppendObjectPath(b *testing.B) {
	d := fsverity.SumBytes([]byte("x"))
	var room [redirectSize]byte
	for b.Loop() {
		appendObjectPath(room[:0], d)
	}
}
