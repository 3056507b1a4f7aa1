package fsverity

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/powernode/powernode-agent/internal/oracle"
)

// reference is the digest computed the plain way: level by level, each as one slice.
func reference(data []byte) Digest {
	size := uint64(len(data))
	var root [32]byte
	if size > 0 {
		root = referenceRoot(hashBlocks(data))
	}
	return referenceDescriptor(size, root)
}

func referenceRoot(level []byte) [32]byte {
	for len(level) > sha256.Size {
		level = hashBlocks(level)
	}
	return [32]byte(level)
}

func referenceDescriptor(size uint64, root [32]byte) Digest {
	d := append([]byte{1, 1, 12, 0, 0, 0, 0, 0}, binary.LittleEndian.AppendUint64(nil, size)...)
	d = append(d, root[:]...)
	d = append(d, make([]byte, 256-len(d))...)
	return sha256.Sum256(d)
}

func hashBlocks(data []byte) []byte {
	var hashes []byte
	for ; len(data) > 0; data = data[min(len(data), 4096):] {
		block := make([]byte, 4096)
		copy(block, data)
		sum := sha256.Sum256(block)
		hashes = append(hashes, sum[:]...)
	}
	return hashes
}

// pattern returns size bytes in which no two blocks are alike.
func pattern(size int) []byte {
	data := make([]byte, size)
	for i := 0; i+8 <= size; i += 8 {
		binary.LittleEndian.PutUint64(data[i:], uint64(i)*0x9E3779B97F4A7C15)
	}
	return data
}

// sizes are those at which a block, a tree block or a level begins or ends.
var sizes = []int{
	0, 1, 31, 32, 4095, 4096, 4097, 8191, 8192, 8193, 127 * 4096, 128*4096 - 1, 128 * 4096, 128*4096 + 1,
	129 * 4096, 256*4096 - 1, 256 * 4096, 256*4096 + 1, parallelMin - 1, parallelMin, parallelMin + 1,
	128*128*4096 - 1, 128 * 128 * 4096, 128*128*4096 + 1, 70_000_000,
}

func TestSizes(t *testing.T) {
	for _, size := range sizes {
		data := pattern(size)
		want := reference(data)
		if got := SumBytes(data); got != want {
			t.Errorf("SumBytes of %d bytes: %s, want %s", size, got, want)
		}
		got, n, err := SumReader(bytes.NewReader(data))
		if got != want || n != uint64(size) || err != nil {
			t.Errorf("SumReader of %d bytes: %s, %d, %v, want %s", size, got, n, err, want)
		}
		for _, window := range []int64{1, 3, windowSpans} {
			got, n, err = sumReaderAt(bytes.NewReader(data), int64(size), 3, window)
			if got != want || n != uint64(size) || err != nil {
				t.Errorf("parallel sum of %d bytes in windows of %d: %s, %d, %v, want %s", size, window, got, n, err, want)
			}
		}
	}
}

// TestTool compares with fsverity-utils.
func TestTool(t *testing.T) {
	tool := oracle.Path(t, "fsverity")
	dir := t.TempDir()
	args := []string{"digest", "--compact"}
	for _, size := range sizes {
		name := filepath.Join(dir, "f"+strings.Repeat("x", len(args)))
		if err := os.WriteFile(name, pattern(size), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, name)
	}
	out, err := exec.Command(tool, args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(out))
	if len(lines) != len(sizes) {
		t.Fatalf("fsverity printed %d digests for %d files", len(lines), len(sizes))
	}
	for i, size := range sizes {
		f, err := os.Open(args[i+2])
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := SumFile(f)
		f.Close()
		if err != nil || got.String() != lines[i] {
			t.Errorf("%d bytes: %s, %v; fsverity says %s", size, got, err, lines[i])
		}
	}
}

// TestDeepTree checks the fourth level of the tree, which 8 GiB of data reach, on hashes alone.
func TestDeepTree(t *testing.T) {
	const leaves = 128*128*128 + 1
	for _, n := range []int{leaves - 2, leaves - 1, leaves} {
		var h Hasher
		list := make([]byte, 0, n*sha256.Size)
		for i := range n {
			var d [32]byte
			binary.LittleEndian.PutUint64(d[:], uint64(i)+1)
			list = append(list, d[:]...)
			h.push(0, d)
		}
		h.size = uint64(n) * BlockSize
		if got, want := h.Sum(), referenceDescriptor(h.size, referenceRoot(list)); got != want {
			t.Errorf("%d blocks: %s, want %s", n, got, want)
		}
	}
}

// TestAnyPieces: the digest doesn't depend on how the bytes arrive, on sums taken on the way, or
// on what the Hasher did before.
func TestAnyPieces(t *testing.T) {
	var h Hasher
	dual := NewDualHasher()
	rapid.Check(t, func(t *rapid.T) {
		data := pattern(rapid.IntRange(0, 600_000).Draw(t, "size"))
		h.Reset()
		dual.Reset()
		for rest := data; len(rest) > 0; {
			n := min(len(rest), rapid.OneOf(rapid.IntRange(1, 200_000), rapid.SampledFrom([]int{1, 4095, 4096, 4097})).Draw(t, "piece"))
			h.Write(rest[:n])
			dual.Write(rest[:n])
			rest = rest[n:]
			if rapid.Bool().Draw(t, "sum") {
				so := data[:len(data)-len(rest)]
				if got := h.Sum(); got != reference(so) || h.Size() != uint64(len(so)) {
					t.Fatalf("after %d bytes: %s (size %d), want %s", len(so), got, h.Size(), reference(so))
				}
			}
		}
		if got, want := h.Sum(), reference(data); got != want || dual.Sum() != want {
			t.Fatalf("%d bytes: %s and %s, want %s", len(data), got, dual.Sum(), want)
		}
		if dual.SHA256() != sha256.Sum256(data) {
			t.Fatalf("plain SHA-256 of %d bytes differs", len(data))
		}
	})
}

func FuzzHasher(f *testing.F) {
	f.Add([]byte(nil), uint16(0), uint16(1))
	f.Add([]byte("a"), uint16(4096), uint16(4095))
	f.Add([]byte("abc"), uint16(43691*2%65536), uint16(7))
	f.Fuzz(func(t *testing.T, seed []byte, repeat, piece uint16) {
		data := bytes.Repeat(seed, min(int(repeat), 600_000/max(1, len(seed))))
		var h Hasher
		for rest := data; len(rest) > 0; {
			n := min(len(rest), int(piece)+1)
			h.Write(rest[:n])
			rest = rest[n:]
		}
		if got, want := h.Sum(), reference(data); got != want {
			t.Fatalf("%d bytes: %s, want %s", len(data), got, want)
		}
	})
}

func TestNoAllocations(t *testing.T) {
	data := pattern(2 << 20)
	var h Hasher
	h.Write(data)
	if n := testing.AllocsPerRun(10, func() {
		h.Reset()
		h.Write(data[:5000])
		h.Write(data)
		h.Sum()
	}); n != 0 {
		t.Errorf("a used Hasher allocates %v times", n)
	}
	if n := testing.AllocsPerRun(10, func() { SumBytes(data[:100_000]) }); n != 0 {
		t.Errorf("SumBytes of a small file allocates %v times", n)
	}
}

func TestSumFileErrors(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, _, err := SumFile(dir); err == nil {
		t.Error("SumFile of a directory: no error")
	}
	for _, size := range []int64{100, 3 * parallelMin} {
		if _, _, err := sumReaderAt(bytes.NewReader(make([]byte, size-1)), size, 2, windowSpans); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("a file of %d bytes that lost one: %v", size, err)
		}
	}
	broken := iotest.ErrReader(io.ErrClosedPipe)
	if _, _, err := SumReader(broken); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("SumReader of a broken reader: %v", err)
	}
}

func TestSHA256NeedsDualHasher(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("SHA256 of a plain Hasher returned")
		}
	}()
	NewHasher().SHA256()
}

func BenchmarkHasher(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10, 16 << 20} {
		b.Run(byteSize(size), func(b *testing.B) {
			data := pattern(size)
			var h Hasher
			b.SetBytes(int64(size))
			for b.Loop() {
				h.Reset()
				h.Write(data)
				h.Sum()
			}
		})
	}
}

func BenchmarkDualHasher(b *testing.B) {
	data := pattern(16 << 20)
	h := NewDualHasher()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		h.Reset()
		h.Write(data)
		h.Sum()
		h.SHA256()
	}
}

func BenchmarkSumFile(b *testing.B) {
	f, err := os.CreateTemp(b.TempDir(), "")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	const size = 256 << 20
	for i := 0; i < size; i += 16 << 20 {
		f.Write(pattern(16 << 20))
	}
	b.SetBytes(size)
	for b.Loop() {
		if _, _, err := SumFile(f); err != nil {
			b.Fatal(err)
		}
	}
}

func byteSize(n int) string {
	if n >= 1<<20 {
		return "MiB"
	}
	return map[int]string{1 << 10: "1KiB", 64 << 10: "64KiB"}[n]
}
