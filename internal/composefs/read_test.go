package composefs

import (
	"bytes"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

func TestReadingGivesTheTreeThatWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.SampledFrom([]scope{plain, imageOddity}).Draw(t, "scope")
		root := genTree(t, most)
		opts := rapid.SampledFrom([]Options{Default, {0, 0}, V1}).Draw(t, "version")
		image, digest, err := Build(root, opts)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Read(bytes.NewReader(image), int64(len(image)))
		if err != nil {
			t.Fatalf("Read: %v\n%.2000s", err, dumpOf(t, root))
		}
		version, err := parseHeader(image)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := Digest(again, Options{version, version}); err != nil || d != digest {
			t.Fatalf("the image's tree has another image: %v %s", err, firstDifferentLine(dumpOf(t, root), dumpOf(t, again)))
		}
		if before, after := dumpOf(t, root), dumpOf(t, again); most == plain && !bytes.Equal(before, after) {
			t.Fatalf("the image's tree is another: %s", firstDifferentLine(before, after))
		}
	})
}

// firstDifferentLine shows where two dumps start to differ.
func firstDifferentLine(a, b []byte) string {
	la, lb := bytes.Split(a, []byte{'\n'}), bytes.Split(b, []byte{'\n'})
	for i := range min(len(la), len(lb)) {
		if !bytes.Equal(la[i], lb[i]) {
			at := firstDifference(la[i], lb[i])
			return fmt.Sprintf("line %d differs at %d: %.100q and %.100q in %.100q", i+1, at, la[i][at:], lb[i][at:], la[i])
		}
	}
	return fmt.Sprintf("%d and %d lines", len(la), len(lb))
}
