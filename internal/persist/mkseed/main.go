// Mkseed makes seed.zst of package persist: the ext4 that a device is prepared with, as the blocks
// that mkfs.ext4 writes. Run it by `go generate ./internal/persist`, with e2fsprogs 1.47.0 (Debian
// 12), and no other version: the bytes depend on it, and a test compares them.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
)

const (
	blockSize = 4096
	blocks    = 256 << 20 / blockSize
)

// features are named one by one, so that no mke2fs.conf has a say. Those that count here:
// verity for the object store, metadata_csum_seed so that the UUID can be changed without touching
// any other block, 64bit, flex_bg and resize_inode so that the mounted file system can grow.
const features = "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file," +
	"huge_file,dir_nlink,extra_isize,metadata_csum,metadata_csum_seed,verity,resize_inode"

// extended: resize= makes the resize inode as large as it can be, for growth up to 8 TiB (beyond that
// the kernel goes over to meta_bg by itself). All tables are written, so that what isn't written is
// known to be of no importance.
const extended = "resize=2147483647,hash_seed=00000000-0000-0000-0000-000000000002,nodiscard," +
	"lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0"

func main() {
	if err := run(); err != nil {
		log.SetFlags(0)
		log.Fatalln("mkseed:", err)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: mkseed FILE")
	}
	plain, err := seed()
	if err != nil {
		return err
	}
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	return os.WriteFile(os.Args[1], w.EncodeAll(plain, nil), 0o644)
}

// seed makes the file system on a file full of a pattern and returns the blocks in which the pattern
// isn't any more.
func seed() ([]byte, error) {
	dir, err := os.MkdirTemp("", "mkseed")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a scratch directory
	f, err := os.Create(filepath.Join(dir, "image"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for n := range blocks {
		if _, err := f.Write(fill(n)); err != nil {
			return nil, err
		}
	}
	cmd := exec.CommandContext(context.Background(), "mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "256", "-i", "32768", "-J", "size=64", "-m", "1",
		"-e", "remount-ro", "-O", features, "-E", extended, "-L", "powernode", "-U", "00000000-0000-0000-0000-000000000001", f.Name())
	// A fixed time: 2026-01-01. The clock of a machine that boots for the first time is no better.
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "E2FSPROGS_FAKE_TIME=1767225600", "MKE2FS_CONFIG=/dev/null", "LC_ALL=C"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mkfs.ext4: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return collect(f)
}

func fill(n int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "unwritten%07d", n), blockSize/16)
}

// collect writes the format that package persist reads: "PNSEED1\n", then, little-endian, the block
// size, the number of blocks and of extents, the extents (first block, blocks, 1 for data and 0 for
// zeros, four bytes each), and the data of those that have some.
func collect(f io.ReaderAt) ([]byte, error) {
	type extent struct{ start, count, kind uint32 }
	var extents []extent
	var data []byte
	block, zero := make([]byte, blockSize), make([]byte, blockSize)
	for n := range blocks {
		if _, err := f.ReadAt(block, int64(n)*blockSize); err != nil {
			return nil, err
		}
		var kind uint32
		switch {
		case bytes.Equal(block, fill(n)):
			continue
		case !bytes.Equal(block, zero):
			kind, data = 1, append(data, block...)
		}
		if k := len(extents) - 1; k >= 0 && extents[k].kind == kind && int(extents[k].start+extents[k].count) == n {
			extents[k].count++
		} else {
			extents = append(extents, extent{uint32(n), 1, kind})
		}
	}
	out := []byte("PNSEED1\n")
	for _, v := range []uint32{blockSize, blocks, uint32(len(extents))} {
		out = binary.LittleEndian.AppendUint32(out, v)
	}
	for _, e := range extents {
		for _, v := range []uint32{e.start, e.count, e.kind} {
			out = binary.LittleEndian.AppendUint32(out, v)
		}
	}
	return append(out, data...), nil
}
