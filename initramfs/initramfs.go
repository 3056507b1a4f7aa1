// Package initramfs makes the minimal initramfs that a node boots from: the agent as /init, the
// kernel modules that it may need to find its disk and the network, the trust policy, the CA
// certificates, and nothing else. There is no shell and no other program in it.
//
// It promises that the same inputs give the same bytes, whoever builds them and when, so that an
// initramfs can be measured and signed. It trusts its inputs: whoever builds an initramfs decides
// what the machine is.
//
// The kernel unpacks a cpio archive of the format newc (Documentation/driver-api/early-userspace/
// buffer-format.rst). The directories dracut and initramfs-tools beside this file hold what makes
// the agent part of an initramfs that those programs build.
package initramfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Where things lie in the initramfs.
const (
	// TrustDir holds the trust policy, trust.yaml, and the keys that it names.
	TrustDir = "etc/powernode"
	// BootConfig is what to do at boot where the kernel command line says nothing.
	BootConfig = "etc/powernode/boot.yaml"
	// CAFile is where Go programs look for the certificates that the public network is trusted by.
	CAFile = "etc/ssl/certs/ca-certificates.crt"
)

// Spec says what an initramfs is made of.
type Spec struct {
	// Init is the program that becomes /init: a static powernode-agent.
	Init string
	// KernelDir is the kernel's module directory, lib/modules/RELEASE, with the index that depmod
	// makes. With "" there are no modules.
	KernelDir string
	// Modules are kernel modules to take besides DefaultModules; one that the kernel doesn't have
	// is an error.
	Modules []string
	// Trust is a directory with the trust policy; BootConfig and CA are files. "" leaves each out.
	Trust, BootConfig, CA string
	// Files are further files of the host by their path in the initramfs, for tests.
	Files map[string]string
}

// Report says what an initramfs holds. Sizes are in bytes, before the compression of the whole.
type Report struct {
	// Modules are the names of the kernel modules, sorted.
	Modules []string
	// Missing are the default modules that this kernel neither has nor has built in.
	Missing []string
	// InitSize and ModulesSize are what the program and the modules take, Size is the whole.
	InitSize, ModulesSize, Size int64
}

// Write writes the initramfs to w, compressed with zstd (Linux 5.9 and later unpack that).
func Write(w io.Writer, s Spec) (Report, error) {
	image, report, err := s.collect()
	if err != nil {
		return report, err
	}
	// One encoder thread: the result must not depend on the number of processors. Eight MiB is
	// the window that every decoder has to accept (RFC 8878, 3.1.1.1.2).
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20))
	if err != nil {
		return report, err
	}
	counted := &counter{w: z}
	if err := image.write(counted); err != nil {
		return report, err
	}
	report.Size = counted.n
	return report, z.Close()
}

// collect decides what is in the archive.
func (s Spec) collect() (*archive, Report, error) {
	var report Report
	image := newArchive()
	for _, dir := range []string{"dev", "etc", "persist", "proc", "root", "run", "sys", "tmp"} {
		image.dir(dir)
	}
	// The kernel opens it for /init before /init can mount anything.
	image.add("dev/console", entry{mode: modeCharDevice | 0o600, major: 5, minor: 1})
	// Where no console can be used, the kernel starts /init without open files, and the first thing
	// that a Go program does is to open this in their place: without it, it ends, and the kernel panics.
	image.add("dev/null", entry{mode: modeCharDevice | 0o666, major: 1, minor: 3})
	info, err := os.Stat(s.Init)
	if err != nil {
		return nil, report, fmt.Errorf("the program for /init: %w", err)
	}
	report.InitSize = info.Size()
	image.file("init", s.Init, 0o755)
	if s.KernelDir != "" {
		if report.Modules, report.Missing, err = s.addModules(image); err != nil {
			return nil, report, err
		}
		report.ModulesSize = image.sizeBelow("lib/modules")
	}
	if s.Trust != "" {
		if err := addTree(image, TrustDir, s.Trust); err != nil {
			return nil, report, fmt.Errorf("the trust policy's directory: %w", err)
		}
	}
	for at, from := range map[string]string{BootConfig: s.BootConfig, CAFile: s.CA} {
		if from != "" {
			image.file(at, from, 0o644)
		}
	}
	for at, from := range s.Files {
		mode := uint32(0o644)
		if info, err := os.Stat(from); err == nil && info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		image.file(at, from, mode)
	}
	return image, report, nil
}

// addModules adds the modules with all that they depend on, and the index of just these.
func (s Spec) addModules(image *archive) (names, missing []string, err error) {
	index, err := readIndex(s.KernelDir)
	if err != nil {
		return nil, nil, err
	}
	chosen, missing := index.choose(DefaultModules())
	further, unknown := index.choose(s.Modules)
	if len(unknown) > 0 {
		return nil, nil, fmt.Errorf("the kernel of %s has no module %s", s.KernelDir, strings.Join(unknown, ", "))
	}
	chosen = index.closure(append(chosen, further...))
	at := path.Join("lib/modules", filepath.Base(s.KernelDir))
	for _, file := range chosen {
		image.file(path.Join(at, file), filepath.Join(s.KernelDir, file), 0o644)
		names = append(names, moduleName(file))
	}
	image.text(path.Join(at, "modules.dep"), index.depText(chosen))
	for _, name := range []string{"modules.alias", "modules.softdep"} {
		text, err := subset(filepath.Join(s.KernelDir, name), names)
		if err != nil {
			return nil, nil, err
		}
		image.text(path.Join(at, name), text)
	}
	image.file(path.Join(at, "modules.builtin"), filepath.Join(s.KernelDir, "modules.builtin"), 0o644)
	slices.Sort(names)
	return names, missing, nil
}

// addTree adds the regular files below dir. A link or device in a trust policy's directory is a
// mistake of who made it.
func addTree(image *archive, at, dir string) error {
	return filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if !e.Type().IsRegular() {
			return errors.New(name + " isn't a regular file")
		}
		rel, err := filepath.Rel(dir, name)
		image.file(path.Join(at, filepath.ToSlash(rel)), name, 0o644)
		return err
	})
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
