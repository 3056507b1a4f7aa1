package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// load uses a tree in tight loops while it may be changed beneath, until SIGTERM; then it prints what came of that as
// JSON. Args are directories that have a file "page", "twin" with the same content and a program "true", and a path
// beside which it writes: one log that is open all the time, one that is opened for each line.
type load struct {
	stop   chan struct{}
	report report
}

type report struct {
	// Rounds counts them by what was done, Failures are what went wrong, Seen the contents that were seen, by their
	// first bytes.
	Rounds   map[string]int `json:"rounds"`
	Failures []string       `json:"failures"`
	Seen     []string       `json:"seen"`
	// Lines are how many each log should have.
	Lines map[string]int `json:"lines"`
}

// failuresMax is how many failures are told; there is to be none.
const failuresMax = 20

// loadPause is between two rounds: an emulated processor has to do everything else, too.
const loadPause = time.Millisecond

const loadNice = 10

func runLoad(log string, dirs []string) error {
	// In no unit's control group: a change restarts a unit whose processes use what it replaces, as this one does all the
	// time, and with it the init that the test speaks with. Where there are no groups, there are no units.
	_ = os.WriteFile("/sys/fs/cgroup/cgroup.procs", []byte(strconv.Itoa(os.Getpid())), 0o200)
	// What changes the tree meanwhile comes first: there is one processor, which is emulated.
	_ = unix.Setpgid(0, 0) // or it is the first of its group already
	if err := unix.Setpriority(unix.PRIO_PGRP, 0, loadNice); err != nil {
		return fmt.Errorf("be nice: %w", err)
	}
	l := &load{stop: make(chan struct{}), report: report{Rounds: map[string]int{}, Lines: map[string]int{}}}
	held, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer held.Close()
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	go func() { <-ended; close(l.stop) }()
	byPath := log + ".by-path"
	for n := 0; ; n++ {
		select {
		case <-l.stop:
			l.whole(log)
			l.whole(byPath)
			slices.Sort(l.report.Seen)
			return json.NewEncoder(os.Stdout).Encode(l.report)
		case <-time.After(loadPause):
		}
		for _, dir := range dirs {
			l.round("directory", func() error { return l.directory(dir) })
			l.round("stat", func() error { return statAll(dir) })
			l.round("map", func() error { return l.mapped(filepath.Join(dir, "page")) })
			if n%8 == 0 { // the one that takes long
				l.round("exec", func() error { return exec.Command(filepath.Join(dir, "true")).Run() })
			}
		}
		l.round("write", func() error { return l.line(held, log) })
		l.round("write by path", func() error {
			f, err := os.OpenFile(byPath, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
			if err != nil {
				return err
			}
			return errors.Join(l.line(f, byPath), f.Close())
		})
	}
}

func (l *load) round(what string, do func() error) {
	l.report.Rounds[what]++
	if err := do(); err != nil && len(l.report.Failures) < failuresMax {
		l.report.Failures = append(l.report.Failures, fmt.Sprintf("%s, round %d: %v", what, l.report.Rounds[what], err))
	}
}

// directory reads two files of one open directory: both are there, and of the same version.
func (l *load) directory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	var contents [2][]byte
	for i, name := range []string{"page", "twin"} {
		if !slices.Contains(names, name) {
			return fmt.Errorf("%s isn't among %q", name, names)
		}
		fd, err := unix.Openat(int(d.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", name, err)
		}
		f := os.NewFile(uintptr(fd), name)
		contents[i], err = io.ReadAll(f)
		f.Close()
		if err != nil {
			return err
		}
	}
	if !bytes.Equal(contents[0], contents[1]) {
		return fmt.Errorf("page is %.40q and twin %.40q", contents[0], contents[1])
	}
	l.saw(contents[0])
	return nil
}

func (l *load) saw(content []byte) {
	first := string(content[:min(40, len(content))])
	if !slices.Contains(l.report.Seen, first) {
		l.report.Seen = append(l.report.Seen, first)
	}
}

func statAll(dir string) error {
	for _, name := range []string{"", "page", "twin", "true"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// mapped reads a file by its mapping, to its last page.
func (l *load) mapped(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	if strings.Count(string(m), "\n") == 0 {
		err = fmt.Errorf("%d bytes without a line", len(m))
	}
	l.saw(m)
	return errors.Join(err, unix.Munmap(m))
}

// line writes the next line of a log.
func (l *load) line(f *os.File, log string) error {
	if _, err := fmt.Fprintf(f, "%d\n", l.report.Lines[log]); err != nil {
		return err
	}
	l.report.Lines[log]++
	return nil
}

// whole checks that a log has all of its lines, as whoever opens it now sees it.
func (l *load) whole(log string) {
	var want strings.Builder
	for n := range l.report.Lines[log] {
		fmt.Fprintf(&want, "%d\n", n)
	}
	text, err := os.ReadFile(log)
	if err == nil && string(text) != want.String() {
		err = fmt.Errorf("%s has %d bytes, and %d were written", log, len(text), want.Len())
	}
	if err != nil {
		l.report.Failures = append(l.report.Failures, err.Error())
	}
}
