package composefs

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/internal/tree"
)

// mkcomposefs returns the image that C makes of a dump.
func mkcomposefs(tool string, dump []byte, opts Options) ([]byte, error) {
	cmd := exec.Command(tool, "--from-file", fmt.Sprintf("--min-version=%d", opts.MinVersion), fmt.Sprintf("--max-version=%d", opts.MaxVersion), "-", "-")
	cmd.Stdin = bytes.NewReader(dump)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("mkcomposefs: %w: %s", err, strings.TrimSpace(errs.String()))
	}
	return out.Bytes(), nil
}

func dumpOf(t rapid.TB, root *tree.Node) []byte {
	var dump bytes.Buffer
	if err := WriteDump(&dump, root); err != nil {
		t.Fatalf("WriteDump: %v", err)
	}
	return dump.Bytes()
}

func TestImagesAreMkcomposefssByteForByte(t *testing.T) {
	tool := oracle.Path(t, "mkcomposefs")
	rapid.Check(t, func(t *rapid.T) {
		root := genTree(t, dumpOddity)
		opts := rapid.SampledFrom([]Options{Default, {0, 0}, V1}).Draw(t, "version")
		dump := dumpOf(t, root)
		ours, digest, err := Build(root, opts)
		if err != nil {
			t.Fatalf("Build: %v\n%s", err, dump)
		}
		theirs, err := mkcomposefs(tool, dump, opts)
		if err != nil {
			t.Fatalf("%v\n%.2000s", err, dump)
		}
		if at := firstDifference(ours, theirs); at >= 0 {
			t.Fatalf("images of %d and %d bytes differ at %d\n%.4000s", len(ours), len(theirs), at, dump)
		}
		again, err := ReadDump(bytes.NewReader(dump), Limits{})
		if err != nil {
			t.Fatalf("ReadDump: %v\n%.2000s", err, dump)
		}
		if d, err := Digest(again, opts); err != nil || d != digest {
			t.Fatalf("the dump's tree has another image: %v\n%.2000s", err, dump)
		}
	})
}

// firstDifference returns where two byte slices start to differ, or -1.
func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	if len(a) != len(b) {
		return min(len(a), len(b))
	}
	return -1
}
