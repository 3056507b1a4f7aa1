package composefs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/internal/tree"
)

// vectors pin the digests of the dumps in testdata, as mkcomposefs 1.0.8 prints them: a change of
// a byte is a change of every seal in the world.
var vectors = []struct{ name, byDefault, v0, v1 string }{
	{
		"layout", "9b3e252667b11dfcf6158d37826287afe0927711961306e02ea188985313f61e",
		"9b3e252667b11dfcf6158d37826287afe0927711961306e02ea188985313f61e", "1b52537bbe4ea621f5018cc58406787e7b165d344210724a59810f79c89af8ac",
	},
	{
		"links", "a969d5b79d92c776e2081ba5e20442d6c882e664d0b2f1dc0d43176d504ce35b",
		"a969d5b79d92c776e2081ba5e20442d6c882e664d0b2f1dc0d43176d504ce35b", "e0ab27bd8cd9f14cd4e4c6179e102b07f09f2a611e6e9027470cb52c41c2dcdc",
	},
	{
		"overlay", "9f6cd009abdbd334fbd7c584a79d000c52dd631f5a9aaaaaf8a9c9b7bb4a4fca",
		"58709bfa4e780b6f54b08ba5e4f6b092b52fb707c3f74d4d69f28057aef4934d", "9f6cd009abdbd334fbd7c584a79d000c52dd631f5a9aaaaaf8a9c9b7bb4a4fca",
	},
	{
		"types", "0a683d10c369fbcf08f9429a748e76d15539fc53603a08fe9b57f51b854249ff",
		"0a683d10c369fbcf08f9429a748e76d15539fc53603a08fe9b57f51b854249ff", "140812c7e8aa8c65b040257a3a97534b4e06c8b3507ca2553edc24344333d0e7",
	},
	{
		"values", "51a7e7176d60420c32eb168b69bc6c8a0a57a0e35a0acdbad975faa4001a8ba5",
		"51a7e7176d60420c32eb168b69bc6c8a0a57a0e35a0acdbad975faa4001a8ba5", "67f8f48ba76b31c089681d483ed7bbc13691ee812777045ded4b91b655886c8d",
	},
	{
		"xattrs", "efd9615536b27e40c5df880ebc5ad2705d2695caf13627609b9826a2fa6b2c5d",
		"efd9615536b27e40c5df880ebc5ad2705d2695caf13627609b9826a2fa6b2c5d", "d8103fa0b753ccbc54346a63f44a4f4cb4f938edf0719f19015aafdc21f5c296",
	},
}

func vector(t testing.TB, name string) (*tree.Node, []byte) {
	t.Helper()
	dump, err := os.ReadFile(filepath.Join("testdata", name+".dump"))
	if err != nil {
		t.Fatal(err)
	}
	root, err := ReadDump(bytes.NewReader(dump), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return root, dump
}

func TestPinnedDigests(t *testing.T) {
	for _, v := range vectors {
		root, _ := vector(t, v.name)
		for opts, want := range map[Options]string{Default: v.byDefault, {0, 0}: v.v0, V1: v.v1} {
			if got, err := Digest(root, opts); err != nil || got.String() != want {
				t.Errorf("%s %v: digest %s, %v; want %s", v.name, opts, got, err, want)
			}
		}
	}
}

func TestPinnedDigestsAreMkcomposefss(t *testing.T) {
	tool := oracle.Path(t, "mkcomposefs")
	for _, v := range vectors {
		_, dump := vector(t, v.name)
		for flag, want := range map[string]string{"--threads=1": v.byDefault, "--min-version=0": v.v0, "--min-version=1": v.v1} {
			cmd := exec.Command(tool, flag, "--print-digest-only", "--from-file", "-")
			cmd.Stdin = bytes.NewReader(dump)
			if out, err := cmd.Output(); err != nil || strings.TrimSpace(string(out)) != want {
				t.Errorf("%s %s: %s, %v; want %s", v.name, flag, out, err, want)
			}
		}
	}
}

// largeDir is a directory of 100,000 entries, some of whose files have names elsewhere.
func largeDir() *tree.Node {
	root, dir := tree.NewDir(0o755), tree.NewDir(0o755)
	root.SetChild("large", dir)
	for i := range 100_000 {
		n := &tree.Node{Kind: tree.Regular, Mode: 0o644, Size: uint64(i)}
		n.Digest[0], n.Digest[1], n.Digest[2], n.Digest[3] = byte(i), byte(i>>8), byte(i>>16), 1
		if i == 0 {
			n.Digest = [32]byte{}
		}
		dir.SetChild(fmt.Sprintf("entry-%d", i), n)
		if i%1000 == 0 {
			root.SetChild(fmt.Sprintf("link-%d", i), n)
		}
	}
	return root
}

func TestDirectoryOf100000Entries(t *testing.T) {
	root := largeDir()
	image, digest, err := Build(root, V1)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Read(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	if d, err := Digest(again, V1); err != nil || d != digest {
		t.Errorf("read and written again: %s, %v; want %s", d, err, digest)
	}
	theirs, err := mkcomposefs(oracle.Path(t, "mkcomposefs"), dumpOf(t, root), V1)
	if err != nil || !bytes.Equal(image, theirs) {
		t.Errorf("mkcomposefs writes %d bytes, %v; we %d", len(theirs), err, len(image))
	}
}

// imageFiles writes the image of every vector and of random trees into a directory.
func imageFiles(t *testing.T) map[string]*tree.Node {
	t.Helper()
	dir, files := t.TempDir(), make(map[string]*tree.Node)
	add := func(name string, root *tree.Node, opts Options) {
		image, _, err := Build(root, opts)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
		files[path] = root
	}
	for _, v := range vectors {
		root, _ := vector(t, v.name)
		add(v.name+".v0", root, Options{})
		add(v.name+".v1", root, V1)
	}
	if !testing.Short() {
		add("large.v1", largeDir(), V1)
	}
	return files
}

func TestFsckFindsNothing(t *testing.T) {
	tool := oracle.Path(t, "fsck.erofs")
	for path := range imageFiles(t) {
		if out, err := exec.Command(tool, path).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", filepath.Base(path), err, out)
		}
	}
}

func TestComposefsInfoDumpsTheSame(t *testing.T) {
	tool := oracle.Path(t, "composefs-info")
	for path, root := range imageFiles(t) {
		theirs, err := exec.Command(tool, "dump", path).Output()
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		// composefs-info ends odd payloads wherever the next NUL happens to be, leaves version 1's
		// marks in place, and takes the first name that it meets for the first.
		if name := filepath.Base(path); strings.HasPrefix(name, "overlay") || strings.HasPrefix(name, "links") {
			continue
		}
		if ours, theirs := normalize(dumpOf(t, root)), normalize(theirs); !bytes.Equal(ours, theirs) {
			t.Errorf("%s: %s", filepath.Base(path), firstDifferentLine(ours, theirs))
		}
	}
}

// normalize sorts the attributes of each line of a dump.
func normalize(dump []byte) []byte {
	lines := strings.Split(string(dump), "\n")
	for i, l := range lines {
		if f := strings.Split(l, " "); len(f) > fieldCount {
			slices.Sort(f[fieldCount:])
			lines[i] = strings.Join(f, " ")
		}
	}
	return []byte(strings.Join(lines, "\n"))
}
