package kmod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The limits of a look through sysfs. A large server has some 10000 devices.
const (
	devicesMax  = 1 << 20
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
		found, err := modaliases(ctx, sysfs)
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

// modaliases returns what the devices' files called modalias hold, each once. All devices that have
// one are on a bus, but for two classes; looking there takes a third of the time of a walk through
// /sys/devices. Devices that vanish meanwhile aren't missed.
func modaliases(ctx context.Context, sysfs string) ([]string, error) {
	buses, err := os.ReadDir(filepath.Join(sysfs, "bus"))
	if err != nil {
		return nil, fmt.Errorf("look for devices that need a driver: %w", err)
	}
	dirs := []string{filepath.Join(sysfs, "class/input"), filepath.Join(sysfs, "class/dmi")}
	for _, b := range buses {
		dirs = append(dirs, filepath.Join(sysfs, "bus", b.Name(), "devices"))
	}
	var found []string
	seen, devices := map[string]bool{}, 0
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		if devices += len(entries); devices > devicesMax {
			return nil, fmt.Errorf("look for devices that need a driver: there are more than %d", devicesMax)
		}
		for _, e := range entries {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if a := readModalias(filepath.Join(dir, e.Name(), "modalias")); a != "" && !seen[a] {
				seen[a] = true
				found = append(found, a)
			}
		}
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
