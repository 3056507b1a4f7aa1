package live

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// slow is the pace of the programs that do a lot in each round.
const slow = 2 * time.Millisecond

// renamed renames by two paths. Each is looked up by itself: where a directory is replaced between the two, the kernel says that they
// are on two file systems, and mv and its like copy then.
func renamed(from, to string) error {
	err := os.Rename(from, to)
	for range 3 {
		if !errors.Is(err, unix.EXDEV) {
			break
		}
		err = os.Rename(from, to)
	}
	return err
}

// moreWriters are the programs that make and rename directories, change modes, write by memory, and lock. The result checks that nothing
// of it is lost.
func (s *stress) moreWriters() (finish func()) {
	checks := []func(){s.directories(), s.modes(), s.memory("usr/lib/mapped"), s.memory("etc/mapped"), s.locks()}
	return func() {
		s.Helper()
		for _, check := range checks {
			check()
		}
	}
}

// directories makes directories, fills them and renames them.
func (s *stress) directories() func() {
	made := 0
	s.loop("mkdir and rename", func(n int) error {
		time.Sleep(slow)
		at := func(name string) string { return s.in(fmt.Sprintf("usr/created/dirs/%s-%06d", name, n)) }
		made++
		err := os.MkdirAll(at("new"), 0o755)
		if err == nil {
			err = errors.Join(os.WriteFile(at("new")+"/file", []byte(strconv.Itoa(n)), 0o644), renamed(at("new"), at("named")))
		}
		if err != nil {
			return err
		}
		b, err := os.ReadFile(at("named") + "/file")
		if err == nil && string(b) != strconv.Itoa(n) {
			err = fmt.Errorf("reads %q", b)
		}
		return err
	})
	return func() {
		s.Helper()
		named, err := filepath.Glob(s.in("usr/created/dirs/named-*/file"))
		must(s, err)
		all, err := os.ReadDir(s.in("usr/created/dirs"))
		must(s, err)
		if len(named) != made || len(all) != made {
			s.Errorf("%d directories of %d, with %d files", len(all), made, len(named))
		}
	}
}

// modes changes the mode of a file that was made here.
func (s *stress) modes() func() {
	path := s.in("usr/created/mode")
	must(s, os.WriteFile(path, []byte("content"), 0o600))
	last := os.FileMode(0)
	s.loop("chmod", func(n int) error {
		last = os.FileMode(0o600 | n%0o100)
		if err := os.Chmod(path, last); err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err == nil && info.Mode().Perm() != last {
			err = fmt.Errorf("mode %v, want %v", info.Mode(), last)
		}
		return err
	})
	return func() {
		s.Helper()
		info, err := os.Stat(path)
		if b, readErr := os.ReadFile(path); err != nil || readErr != nil || string(b) != "content" || info.Mode().Perm() != last {
			s.Errorf("mode %v, want %v; %q, %v, %v", info, last, b, err, readErr)
		}
	}
}

// memory writes through a mapping that lasts, and through one that is made each time.
func (s *stress) memory(path string) func() {
	const words = 2048
	must(s, os.WriteFile(s.in(path), make([]byte, 8*words*2), 0o600))
	mapped := func() ([]byte, error) {
		f, err := os.OpenFile(s.in(path), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return unix.Mmap(int(f.Fd()), 0, 8*words*2, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	lasting, err := mapped()
	must(s, err)
	want := make([]byte, 8*words*2)
	s.loop("mmap writes to "+path, func(n int) error {
		time.Sleep(slow)
		at, value := 8*(n%words), uint64(n+1)
		binary.LittleEndian.PutUint64(lasting[at:], value)
		binary.LittleEndian.PutUint64(want[at:], value)
		again, err := mapped()
		if err != nil {
			return err
		}
		if got := binary.LittleEndian.Uint64(again[at:]); got != value {
			err = fmt.Errorf("the lasting mapping's %d reads %d by a new one", value, got)
		}
		binary.LittleEndian.PutUint64(again[8*words+at:], value)
		binary.LittleEndian.PutUint64(want[8*words+at:], value)
		return errors.Join(err, unix.Munmap(again))
	})
	return func() {
		s.Helper()
		got, err := os.ReadFile(s.in(path))
		if must(s, err); !bytes.Equal(got, want) {
			s.Errorf("%s lost something that was written by memory", path)
		}
		must(s, unix.Munmap(lasting))
	}
}

// locks counts in a file under a lock: in a directory that is never replaced nothing is lost. In one that is, locks are had without an
// error, and keep out only who uses the same tree (see the package's comment).
func (s *stress) locks() func() {
	must(s, os.WriteFile(s.in("home/counter"), []byte("0"), 0o600))
	must(s, os.WriteFile(s.in("usr/created/lock"), nil, 0o600))
	locked := func(path string, do func(f *os.File) error) error {
		f, err := os.OpenFile(s.in(path), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			return err
		}
		return do(f)
	}
	var counted atomic.Int64
	for i := range 2 {
		s.loop(fmt.Sprintf("lock %d", i), func(int) error {
			time.Sleep(slow)
			return locked("home/counter", func(f *os.File) error {
				text := make([]byte, 32)
				n, err := f.ReadAt(text, 0)
				if n == 0 {
					return err
				}
				number, err := strconv.Atoi(string(text[:n]))
				if err != nil {
					return err
				}
				counted.Add(1)
				_, err = f.WriteAt([]byte(strconv.Itoa(number+1)), 0)
				return err
			})
		})
	}
	s.loop("lock in what is replaced", func(int) error {
		time.Sleep(slow)
		return locked("usr/created/lock", func(*os.File) error { return nil })
	})
	return func() {
		s.Helper()
		if b, err := os.ReadFile(s.in("home/counter")); err != nil || string(b) != strconv.FormatInt(counted.Load(), 10) {
			s.Errorf("the counter reads %q, %v; it was counted %d times", b, err, counted.Load())
		}
	}
}
