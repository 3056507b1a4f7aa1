package kmod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The limits of a walk through sysfs. A large server has some 100000 entries at a depth of 20.
const (
	walkMax     = 1 << 20
	depthMax    = 64
	modaliasMax = 4096 // sysfs gives a page at most
	roundsMax   = 8    // a bus behind a bus behind a bus: a driver's devices have modaliases, too
)

// Coldplug loads the modules that the devices below sysfs ("/sys" as a rule) ask for by their
// modaliases, and again for the devices that appeared by that, until there are no more. What the
// index knows but the directory lacks is left out and noted in Missing: an initramfs carries a part
// of a kernel's modules. The error joins the modules that the kernel refused; none of them keeps the
// others from being loaded. Devices that their drivers find later, as disks are, need Follow.
func (l *Loader) Coldplug(ctx context.Context, sysfs string) (Loaded, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var done Loaded
	if err := l.open(); err != nil || l.none != "" {
		return Loaded{Nothing: l.none}, err
	}
	var errs []error
	for range roundsMax {
		found, err := modaliases(ctx, filepath.Join(sysfs, "devices"))
		if err != nil {
			return done, errors.Join(append(errs, err)...)
		}
		found = slices.DeleteFunc(found, func(a string) bool { return l.tried[a] })
		if len(found) == 0 {
			break
		}
		for _, a := range found {
			if err := ctx.Err(); err != nil {
				return done, errors.Join(append(errs, fmt.Errorf("load the drivers of the machine's devices: %w", context.Cause(ctx)))...)
			}
			if err := l.loadFor(a, &done); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return done, errors.Join(errs...)
}

// Follow loads the modules that modaliases ask for as they come, each once, and returns when ctx
// ends or the channel is closed. notes gets what was done and what failed, where there is something;
// it may be nil.
func (l *Loader) Follow(ctx context.Context, modaliases <-chan string, notes func(Loaded, error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case a, ok := <-modaliases:
			if !ok {
				return
			}
			var done Loaded
			l.mu.Lock()
			err := l.open()
			if err == nil && l.none == "" {
				err = l.loadFor(a, &done)
			}
			l.mu.Unlock()
			if notes != nil && (err != nil || len(done.Modules) > 0) {
				notes(done, err)
			}
		}
	}
}

// loadFor loads what one device asks for, once.
func (l *Loader) loadFor(modalias string, done *Loaded) error {
	if l.tried[modalias] {
		return nil
	}
	l.tried[modalias] = true
	var errs []error
	for _, name := range l.index.aliases.match(modalias) {
		m, ok := l.index.modules[name]
		if !ok {
			continue // built in, or of another kernel
		}
		var part Loaded
		err := l.load(m, &part)
		done.add(part)
		switch {
		case errors.Is(err, errMissing):
			if !slices.Contains(done.Missing, m.name) {
				done.Missing = append(done.Missing, m.name)
			}
		case err != nil:
			errs = append(errs, fmt.Errorf("device %.60q: %w", modalias, err))
		}
	}
	return errors.Join(errs...)
}

// modaliases returns what the files called modalias below dir hold, each once, in the order of the
// walk. Symlinks aren't followed, so that each device is seen once; entries that vanish meanwhile
// aren't missed.
func modaliases(ctx context.Context, dir string) ([]string, error) {
	var found []string
	seen, entries := map[string]bool{}, 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		entries++
		switch {
		case entries > walkMax:
			return fmt.Errorf("%s has more than %d entries", dir, walkMax)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && path == dir:
			return err
		case err != nil:
			return nil
		case d.IsDir():
			// No device has its modalias below these, and they are many.
			if name := d.Name(); name == "power" || name == "statistics" || name == "queues" || name == "msi_irqs" ||
				strings.Count(path[len(dir):], "/") > depthMax {
				return fs.SkipDir
			}
			return nil
		case d.Name() != "modalias" || !d.Type().IsRegular():
			return nil
		}
		if a := readModalias(path); a != "" && !seen[a] {
			seen[a] = true
			found = append(found, a)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for devices that need a driver: %w", err)
	}
	return found, nil
}

// readModalias returns a file's first line; "" where it can't be read or is no modalias.
func readModalias(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, modaliasMax))
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return line
}
