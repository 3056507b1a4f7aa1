package fsverity

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	// parallelMin is the file size from which sharing the work pays for starting goroutines.
	parallelMin = 8 << 20
	// windowSpans bounds what SumFile remembers: one hash for each span of a 1 GiB window.
	windowSpans = 2048
	// readSize is how much SumReader asks for at once.
	readSize = 256 << 10
)

// SumBytes returns the fs-verity digest of a file that holds b.
func SumBytes(b []byte) Digest {
	var h Hasher
	h.Write(b)
	return h.Sum()
}

// SumReader returns the fs-verity digest of a file that holds what r yields, and its size in bytes.
func SumReader(r io.Reader) (Digest, uint64, error) {
	var h Hasher
	// The wrapper hides WriteTo, by which a reader could hand over its bytes in tiny pieces.
	_, err := io.CopyBuffer(&h, struct{ io.Reader }{r}, make([]byte, readSize))
	if err != nil {
		return Digest{}, 0, err
	}
	return h.Sum(), h.size, nil
}

// SumFile returns the fs-verity digest of the regular file f and its size in bytes, hashing a
// large file on all cores. It reads at offsets and leaves f's own offset alone. A file that
// shrinks meanwhile gives io.ErrUnexpectedEOF; bytes added meanwhile don't count.
func SumFile(f *os.File) (Digest, uint64, error) {
	info, err := f.Stat()
	if err != nil {
		return Digest{}, 0, err
	}
	if !info.Mode().IsRegular() {
		return Digest{}, 0, fmt.Errorf("fs-verity digest of %s: not a regular file", f.Name())
	}
	return sumReaderAt(f, info.Size(), runtime.GOMAXPROCS(0), windowSpans)
}

func sumReaderAt(r io.ReaderAt, size int64, workers int, window int64) (Digest, uint64, error) {
	var h Hasher
	if workers < 2 || size < parallelMin {
		buf := make([]byte, max(1, min(size, readSize)))
		n, err := io.CopyBuffer(&h, struct{ io.Reader }{io.NewSectionReader(r, 0, size)}, buf)
		if err == nil && n < size {
			err = io.ErrUnexpectedEOF
		}
		return h.Sum(), h.size, err
	}
	hashes := make([][sha256.Size]byte, min(window, (size+spanSize-1)/spanSize))
	for start := int64(0); start < size; start += window * spanSize {
		length := min(size-start, window*spanSize)
		spans := hashes[:(length+spanSize-1)/spanSize]
		if err := hashSpans(io.NewSectionReader(r, start, length), spans, workers); err != nil {
			return Digest{}, 0, err
		}
		for _, d := range spans {
			h.push(1, d)
		}
	}
	return descriptor(uint64(size), h.rootOfSpans()), uint64(size), nil
}

// hashSpans fills hashes with the hash of the lowest tree block of each span of r.
func hashSpans(r *io.SectionReader, hashes [][sha256.Size]byte, workers int) error {
	var (
		wg   sync.WaitGroup
		next atomic.Int64
		errs = make([]error, min(workers, len(hashes)))
	)
	for w := range errs {
		wg.Go(func() {
			buf := make([]byte, spanSize)
			for {
				i := next.Add(1) - 1
				if i >= int64(len(hashes)) {
					return
				}
				data := buf[:min(spanSize, r.Size()-i*spanSize)]
				if n, err := r.ReadAt(data, i*spanSize); n < len(data) {
					if err == io.EOF {
						err = io.ErrUnexpectedEOF
					}
					errs[w] = err
					next.Store(int64(len(hashes)))
					return
				}
				hashes[i] = hashSpan(data)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// hashSpan returns the hash of the lowest-level tree block over 1 to spanSize bytes of data.
func hashSpan(data []byte) [sha256.Size]byte {
	var b treeBlock
	for len(data) >= BlockSize {
		b.add(sha256.Sum256(data[:BlockSize]))
		data = data[BlockSize:]
	}
	if len(data) > 0 {
		var last [BlockSize]byte
		copy(last[:], data)
		b.add(sha256.Sum256(last[:]))
	}
	return sha256.Sum256(b.buf[:])
}

// rootOfSpans is root for a Hasher that was given span hashes instead of data.
func (h *Hasher) rootOfSpans() [sha256.Size]byte {
	var carry [sha256.Size]byte
	carried := false
	top := h.top()
	for i := 1; i <= top; i++ {
		carry, carried = h.level(i).close(carry, carried, i == top)
	}
	return carry
}
