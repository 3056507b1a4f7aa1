package store

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

func TestModuleComesBack(t *testing.T) {
	s := openStore(t, t.TempDir())
	x := makeSample("nginx", 2)
	if s.HasModule(x.module.ManifestDigest) {
		t.Error("there before it was put")
	}
	if err := x.put(s); err != nil {
		t.Fatal(err)
	}
	want := x.module
	want.Objects = slices.Clone(want.Objects)
	slices.SortFunc(want.Objects, compareDigests)
	got, err := s.GetModule(want.ManifestDigest)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	f, err := s.OpenModuleImage(want.Seal)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if image, err := io.ReadAll(f); err != nil || !bytes.Equal(image, x.image) {
		t.Errorf("image of %d bytes, %v", len(image), err)
	}

	// Another signature has come; one was withdrawn.
	for _, bundles := range [][][]byte{append(x.module.Bundles, []byte("third")), nil} {
		x.module.Bundles = bundles
		if err := s.PutModule(x.module, nil); err != nil {
			t.Fatal(err)
		}
		if got, err := s.GetModule(want.ManifestDigest); err != nil || !slices.EqualFunc(got.Bundles, bundles, bytes.Equal) {
			t.Errorf("%d bundles, %v; want %d", len(got.Bundles), err, len(bundles))
		}
	}
	if err := makeSample("apache", 0).put(s); err != nil {
		t.Fatal(err)
	}
	list, err := s.ListModules()
	if err != nil || len(list) != 2 || list[0].Name != "apache" || list[1].Name != "nginx" || list[1].Seal != want.Seal {
		t.Errorf("list: %+v, %v", list, err)
	}
	if err := s.RemoveModule(want.ManifestDigest); err != nil || s.HasModule(want.ManifestDigest) {
		t.Errorf("remove: %v", err)
	}
	if _, err := s.GetModule(want.ManifestDigest); !errors.Is(err, fs.ErrNotExist) || fault.HintOf(err) == "" {
		t.Errorf("a module that was removed: %v", err)
	}
	if names := files(t, s.modules.Path()); len(names) != 4 {
		t.Errorf("left: %q", names)
	}
}

func TestPutModuleRefuses(t *testing.T) {
	for name, spoil := range map[string]func(x *sample){
		"no name":             func(x *sample) { x.module.Name = "" },
		"no seal":             func(x *sample) { x.module.Seal = fsverity.Digest{} },
		"another manifest":    func(x *sample) { x.module.Manifest = []byte("{}") },
		"no digest":           func(x *sample) { x.module.ManifestDigest = "" },
		"sha512":              func(x *sample) { x.module.ManifestDigest = "sha512" + x.module.ManifestDigest[6:] },
		"path for a digest":   func(x *sample) { x.module.ManifestDigest = "sha256:../" + x.module.ManifestDigest[10:] },
		"another image":       func(x *sample) { x.image = append(x.image, 0) },
		"a large other image": func(x *sample) { x.image = make([]byte, 2*bufferMax) },
		"a missing object":    func(x *sample) { x.module.Objects = append(x.module.Objects, fsverity.SumBytes([]byte("missing"))) },
		"large config":        func(x *sample) { x.module.Config = make([]byte, configLimit+1) },
		"large bundle":        func(x *sample) { x.module.Bundles = [][]byte{make([]byte, bundleLimit+1)} },
		"many bundles":        func(x *sample) { x.module.Bundles = make([][]byte, bundlesLimit+1) },
		"many objects":        func(x *sample) { x.module.Objects = distinct(objectsLimit + 1) },
		"large manifest": func(x *sample) {
			x.module.Manifest = make([]byte, manifestLimit+1)
			x.module.ManifestDigest = "sha256:" + sha256Hex(x.module.Manifest)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, t.TempDir())
			x := makeSample("nginx", 1)
			spoil(&x)
			if err := x.put(s); err == nil {
				t.Error("it was put")
			} else if strings.Contains(name, "image") && fault.AreaOf(err) != fault.Verify {
				t.Errorf("area %v of: %v", fault.AreaOf(err), err)
			}
			if names := files(t, s.modules.Path()); len(names) > 0 {
				t.Errorf("left behind: %q", names)
			}
			if entries, _ := s.modules.Names(); len(entries) > 0 {
				t.Errorf("left behind: %q", entries)
			}
			if s.HasObject(fsverity.SumBytes(x.image)) && strings.Contains(name, "image") {
				t.Error("the wrong image was kept")
			}
		})
	}
}

func distinct(n int) []fsverity.Digest {
	digests := make([]fsverity.Digest, n)
	for i := range digests {
		digests[i][0], digests[i][1], digests[i][2] = byte(i), byte(i>>8), byte(i>>16)
	}
	return digests
}

// TestDamagedRecords spoils every file of a module and of the generations in several ways: use
// is refused with the file's name, listing leaves out what is damaged and nothing else.
func TestDamagedRecords(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	bad, good := makeSample("bad", 2), makeSample("good", 1)
	for _, x := range []sample{bad, good} {
		if err := x.put(s); err != nil {
			t.Fatal(err)
		}
	}
	root := content("root", 5000)
	for range 2 {
		if _, err := s.PutGeneration(good.generation(root), bytes.NewReader(root)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SetPointer(Current, 1); err != nil {
		t.Fatal(err)
	}
	digits, _ := parseSHA256(bad.module.ManifestDigest)

	spoilers := map[string]func(path string, data []byte) error{
		"cut short": func(path string, data []byte) error { return os.WriteFile(path, data[:len(data)/2], 0o600) },
		"last byte": func(path string, data []byte) error { return os.WriteFile(path, data[:len(data)-2], 0o600) },
		"empty":     func(path string, _ []byte) error { return os.WriteFile(path, nil, 0o600) },
		"zeros":     func(path string, data []byte) error { return os.WriteFile(path, make([]byte, len(data)), 0o600) },
		"longer":    func(path string, data []byte) error { return os.WriteFile(path, append(data, data...), 0o600) },
		"huge":      func(path string, _ []byte) error { return os.Truncate(path, 1<<40) },
		"bit":       func(path string, data []byte) error { data[len(data)/2] ^= 4; return os.WriteFile(path, data, 0o600) },
		"a symlink": func(path string, _ []byte) error {
			return errors.Join(os.Remove(path), os.Symlink("/etc/passwd", path))
		},
		"a FIFO":      func(path string, _ []byte) error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)) },
		"a directory": func(path string, _ []byte) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
	}
	// check spoils the file and puts it right again.
	check := func(name string, used func() error) {
		path := filepath.Join(dir, name)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for how, spoil := range spoilers {
			if err := spoil(path, slices.Clone(data)); err != nil {
				t.Fatal(err)
			}
			if err := used(); err == nil || fault.KindOf(err) != fault.Broken || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) || fault.HintOf(err) == "" {
				t.Errorf("%s, %s: %v", name, how, err)
			}
			if modules, _ := s.ListModules(); !slices.ContainsFunc(modules, func(m Module) bool { return m.Name == "good" }) {
				t.Errorf("%s, %s: the good module isn't listed", name, how)
			}
			if generations, _ := s.Generations(); !slices.ContainsFunc(generations, func(g Generation) bool { return g.Number == 1 }) {
				t.Errorf("%s, %s: generation 1 isn't listed", name, how)
			}
			if strings.HasSuffix(name, "2.json") || strings.HasSuffix(name, moduleFile) || strings.HasSuffix(name, objectsFile) {
				if _, err := s.Collect(t.Context()); err == nil {
					t.Errorf("%s, %s: collected all the same", name, how)
				}
			}
			if err := errors.Join(os.RemoveAll(path), os.WriteFile(path, data, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		if err := used(); err != nil {
			t.Errorf("%s, put right: %v", name, err)
		}
	}
	for _, name := range []string{moduleFile, manifestFile, configFile, objectsFile, bundleFile(0), bundleFile(1)} {
		path := filepath.Join("modules", digits, name)
		check(path, func() error { return second(s.GetModule(bad.module.ManifestDigest)) })
		if err := os.Rename(filepath.Join(dir, path), filepath.Join(dir, "kept")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.GetModule(bad.module.ManifestDigest); fault.KindOf(err) != fault.Broken || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s missing: %v", name, err)
		}
		if err := os.Rename(filepath.Join(dir, "kept"), filepath.Join(dir, path)); err != nil {
			t.Fatal(err)
		}
	}
	check("generations/2.json", func() error { return second(s.Generation(2)) })
	// Another number is a good pointer; one to a generation that isn't here is found when it is used.
	delete(spoilers, "bit")
	delete(spoilers, "longer")
	delete(spoilers, "last byte")
	delete(spoilers, "cut short")
	check("generations/current", func() error { return second(s.Pointer(Current)) })
}

// TestRecordOfAnother: a record that was moved to another name isn't taken for that one.
func TestRecordOfAnother(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	x := makeSample("nginx", 0)
	if err := x.put(s); err != nil {
		t.Fatal(err)
	}
	root := content("root", 100)
	for range 2 {
		if _, err := s.PutGeneration(x.generation(root), bytes.NewReader(root)); err != nil {
			t.Fatal(err)
		}
	}
	other := "sha256:" + sha256Hex([]byte("other"))
	digits, _ := parseSHA256(x.module.ManifestDigest)
	otherDigits, _ := parseSHA256(other)
	if err := errors.Join(
		os.Rename(filepath.Join(dir, "modules", digits), filepath.Join(dir, "modules", otherDigits)),
		os.Rename(filepath.Join(dir, "generations/1.json"), filepath.Join(dir, "generations/2.json")),
	); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GetModule(other); fault.KindOf(err) != fault.Broken {
		t.Errorf("module: %v", err)
	}
	if _, err := s.Generation(2); fault.KindOf(err) != fault.Broken {
		t.Errorf("generation: %v", err)
	}
}

func FuzzOpenRecord(f *testing.F) {
	good, err := sealRecord(makeSample("nginx", 1).generation(nil))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"sha256":"","record":{}}`))
	f.Add([]byte(`{"sha256":"","record":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var g Generation
		if openRecord(data, &g) != nil {
			return
		}
		again, err := sealRecord(g)
		if err != nil {
			t.Fatalf("a record that was read can't be written: %v", err)
		}
		var second Generation
		if err := openRecord(again, &second); err != nil {
			t.Fatalf("a record that was written can't be read: %v", err)
		}
	})
}

func FuzzParseObjects(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(formatObjects(distinct(3)))
	f.Add(formatObjects([]fsverity.Digest{{2}, {1}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		digests, err := parseObjects(data)
		if err == nil && !bytes.Equal(formatObjects(digests), data) {
			t.Errorf("%q came back as %q", data, formatObjects(digests))
		}
	})
}
