package composefs

import (
	"bytes"
	"testing"
)

// FuzzRead: whatever the bytes are, reading them ends, without a panic; and what it takes for an
// image is a tree that an image can be made of again. The bytes are a real image with patches: four
// bytes each, of which two say where and two what.
func FuzzRead(f *testing.F) {
	var images [][]byte
	for _, v := range vectors {
		root, _ := vector(f, v.name)
		for _, opts := range []Options{{}, V1} {
			image, _, err := Build(root, opts)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(len(images)), []byte{})
			f.Add(uint8(len(images)), []byte{0, 4, 0, 0, 200, 9, 255, 255})
			images = append(images, image)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, patches []byte) {
		image := bytes.Clone(images[int(which)%len(images)])
		for ; len(patches) >= 4; patches = patches[4:] {
			at := int(patches[0]) | int(patches[1])<<8
			copy(image[at%(len(image)-1):], patches[2:4])
		}
		root, err := Read(bytes.NewReader(image), int64(len(image)))
		if err != nil {
			return
		}
		again, digest, err := Build(root, V1)
		if err != nil {
			t.Fatalf("the image's tree has no image: %v", err)
		}
		root, err = Read(bytes.NewReader(again), int64(len(again)))
		if err != nil {
			t.Fatalf("our own image can't be read: %v", err)
		}
		if d, err := Digest(root, V1); err != nil || d != digest {
			t.Fatalf("read and written again: %s, %v; want %s", d, err, digest)
		}
	})
}

// FuzzReadDump: as FuzzRead, for dumps.
func FuzzReadDump(f *testing.F) {
	for _, v := range vectors {
		if _, dump := vector(f, v.name); len(dump) < 4096 {
			f.Add(dump)
		}
	}
	f.Add([]byte("/ 4096 40755 2 0 0 0 0.0 - - -\n/a 0 @100644 1 0 0 0 0.0 /b - -\n/b 0 @100644 1 0 0 0 0.0 /a - -"))
	f.Fuzz(func(t *testing.T, dump []byte) {
		root, err := ReadDump(bytes.NewReader(dump), Limits{Entries: 10_000})
		if err != nil {
			return
		}
		image, digest, err := Build(root, Default)
		if err != nil {
			t.Fatalf("the dump's tree has no image: %v", err)
		}
		if _, err := Read(bytes.NewReader(image), int64(len(image))); err != nil {
			t.Fatalf("the dump's image can't be read: %v", err)
		}
		root, err = ReadDump(bytes.NewReader(dumpOf(t, root)), Limits{})
		if err != nil {
			t.Fatalf("our own dump can't be read: %v", err)
		}
		if d, err := Digest(root, Default); err != nil || d != digest {
			t.Fatalf("dumped and read again: %s, %v; want %s", d, err, digest)
		}
	})
}
