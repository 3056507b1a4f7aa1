package kmod

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Loader loads modules of one directory. It is safe for concurrent use; it reads the directory's
// index once.
type Loader struct {
	// Dir is the modules directory, as a rule /lib/modules/RELEASE (see Dir). Where it doesn't
	// exist, there is nothing to load.
	Dir string
	// Proc is where procfs is mounted; "" is /proc.
	Proc string
	// Blocked are modules that are never loaded, as modprobe.blacklist= of the kernel command
	// line names them.
	Blocked []string
	// Insert puts a module into the kernel, with the flags of finit_module(2), and returns the
	// bare errno. nil is that system call.
	Insert func(f *os.File, flags int) error

	mu    sync.Mutex
	root  *os.Root
	index *index
	live  map[string]bool
	none  string
	tried map[string]bool // by Coldplug and Follow: modaliases
}

// Loaded says what a call did.
type Loaded struct {
	Modules []string // put into the kernel, in that order
	NoHW    []string // left out because the hardware or a feature of the processor isn't there
	Missing []string // known to the index, but their files aren't in the directory (Coldplug, Follow)
	Nothing string   // why there is nothing to load on this machine at all; else ""
}

func (l *Loaded) add(m Loaded) {
	l.Modules = append(l.Modules, m.Modules...)
	l.NoHW = append(l.NoHW, m.NoHW...)
	l.Missing = append(l.Missing, m.Missing...)
	if m.Nothing != "" {
		l.Nothing = m.Nothing
	}
}

// Dir returns the modules directory of the running kernel below root ("/" as a rule). It is
// lib/modules/RELEASE, or usr/lib/modules/RELEASE where only that is there.
func Dir(root string) (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("ask for the kernel's release: %w", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	dir := filepath.Join(root, "lib/modules", release)
	if usr := filepath.Join(root, "usr/lib/modules", release); !exists(dir) && exists(usr) {
		return usr, nil
	}
	return dir, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Load puts the named modules, and before them what they need, into the kernel. A name is a
// module's or an alias ("fs-erofs"). Modules that are there already, built in or blocked are left as
// they are; so is one that the kernel answers ENODEV to, since that says that nothing here needs it.
// One name that fails doesn't keep the others from being loaded; the error joins all failures.
func (l *Loader) Load(ctx context.Context, names ...string) (Loaded, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var done Loaded
	if err := l.open(); err != nil || l.none != "" {
		return Loaded{Nothing: l.none}, err
	}
	var errs []error
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return done, errors.Join(append(errs, fmt.Errorf("load kernel module %s: %w", name, context.Cause(ctx)))...)
		}
		modules, known := l.index.resolve(name)
		if !known && !l.live[canonical(name)] {
			errs = append(errs, fault.New(fault.Broken, fault.General,
				"put the module into the initramfs and run depmod there, or boot a kernel that has it built in",
				"load kernel module %s: %s has no module and no alias of that name", name, l.Dir))
			continue
		}
		for _, m := range modules {
			if err := l.load(m, &done); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return done, errors.Join(errs...)
}

// open reads what is there, once.
func (l *Loader) open() error {
	if l.index != nil || l.none != "" {
		return nil
	}
	live, err := readLive(filepath.Join(orDefault(l.Proc, "/proc"), "modules"))
	if errors.Is(err, fs.ErrNotExist) {
		l.none = "this kernel has no loadable modules"
		return nil
	}
	if err != nil {
		return fmt.Errorf("read which kernel modules are loaded: %w", err)
	}
	root, err := os.OpenRoot(l.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		l.none = fmt.Sprintf("there are no kernel modules here: %s doesn't exist", l.Dir)
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the kernel modules: %w", err)
	}
	x, err := readIndex(root)
	if err != nil {
		root.Close()
		return fault.New(fault.Broken, fault.General, "run depmod over the initramfs's modules and build it again",
			"read the index of kernel modules: %w", err)
	}
	l.root, l.index, l.live, l.tried = root, x, live, map[string]bool{}
	return nil
}

// Close gives up the modules directory. A later call opens it again.
func (l *Loader) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.root == nil {
		return nil
	}
	err := l.root.Close()
	l.root, l.index = nil, nil
	return err
}

// readLive reads /proc/modules, whose lines begin with the name of a loaded module.
func readLive(path string) (map[string]bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	live := map[string]bool{}
	s := bufio.NewScanner(io.LimitReader(f, indexMax))
	for s.Scan() {
		if name, _, ok := strings.Cut(s.Text(), " "); ok {
			live[canonical(name)] = true
		}
	}
	return live, s.Err()
}

// load puts m with all that it needs into the kernel and notes it in done.
func (l *Loader) load(m module, done *Loaded) error {
	if l.live[m.name] || l.blocked(m.name) {
		return nil
	}
	l.loadSoft(m, done)
	for _, path := range slices.Backward(m.deps) {
		dep := module{name: nameOf(path), path: path}
		if l.live[dep.name] {
			continue
		}
		l.loadSoft(dep, done)
		if err := l.insert(dep, done); err != nil {
			return fmt.Errorf("load kernel module %s: it needs %s: %w", m.name, dep.name, err)
		}
	}
	if err := l.insert(m, done); err != nil {
		return fmt.Errorf("load kernel module %s: %w", m.name, err)
	}
	return nil
}

// loadSoft loads what m would use if it were there. Whether m can do without is for m to say, so
// failures are left to it. A soft dependency of a soft dependency isn't followed.
func (l *Loader) loadSoft(m module, done *Loaded) {
	for _, name := range l.index.soft[m.name] {
		modules, _ := l.index.resolve(name)
		for _, s := range modules {
			for _, path := range slices.Backward(s.deps) {
				_ = l.insert(module{name: nameOf(path), path: path}, done)
			}
			_ = l.insert(s, done)
		}
	}
}

func (l *Loader) blocked(name string) bool {
	return slices.ContainsFunc(l.Blocked, func(b string) bool { return canonical(b) == name })
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
