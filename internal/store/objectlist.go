package store

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/powernode/powernode-agent/internal/fsverity"
)

// objectLine is the length of a line in an object list: 64 digits and a newline.
const objectLine = 65

func compareDigests(a, b fsverity.Digest) int { return bytes.Compare(a[:], b[:]) }

// formatObjects returns a module's list of objects as lines, so that grep finds who uses one.
func formatObjects(digests []fsverity.Digest) []byte {
	list := make([]byte, 0, len(digests)*objectLine)
	for _, d := range digests {
		list = append(list, d.String()...)
		list = append(list, '\n')
	}
	return list
}

// parseObjects reads what formatObjects wrote, and nothing else: sorted, each digest once.
func parseObjects(list []byte) ([]fsverity.Digest, error) {
	if len(list)%objectLine != 0 {
		return nil, errors.New("the object list is cut short")
	}
	digests := make([]fsverity.Digest, 0, len(list)/objectLine)
	for ; len(list) > 0; list = list[objectLine:] {
		d, err := fsverity.ParseDigest(string(list[:objectLine-1]))
		if err != nil {
			return nil, err
		}
		if list[objectLine-1] != '\n' {
			return nil, fmt.Errorf("no line end after %s", d)
		}
		if n := len(digests); n > 0 && compareDigests(digests[n-1], d) >= 0 {
			return nil, fmt.Errorf("object %s is out of order", d)
		}
		digests = append(digests, d)
	}
	return digests, nil
}
