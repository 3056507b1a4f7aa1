package signedtime

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
)

const (
	seenName = "clock.json"
	seenMax  = 4 << 10
)

// seenFile is the latest time that a platform signed. It stands there in two forms, since a digit that a disk
// has changed would otherwise make a year that no platform ever said, and that would lock the node out.
type seenFile struct {
	Version      int       `json:"version"`
	PlatformTime time.Time `json:"platform_time"`
	Unix         int64     `json:"unix"`
}

func (f seenFile) check() error {
	switch {
	case f.Version != 1:
		return fmt.Errorf("version %d isn't known", f.Version)
	case f.Unix != f.PlatformTime.Unix():
		return errors.New("its two times differ")
	}
	return nil
}

// readSeen returns the latest platform time that was kept in dir; zero where there is none.
func readSeen(dir string, hook durable.Hook) (time.Time, error) {
	d, err := durable.OpenDir(dir, hook)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	defer d.Close()
	return seenIn(d)
}

func seenIn(d *durable.Dir) (time.Time, error) {
	var f seenFile
	err := d.ReadJSON(seenName, seenMax, &f)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	if err := f.check(); err != nil {
		return time.Time{}, fmt.Errorf("%s is damaged: %w", filepath.Join(d.Path(), seenName), err)
	}
	return f.PlatformTime, nil
}

// writeSeen keeps t in dir; unless lower is set, only where another process hasn't kept a later one meanwhile.
func writeSeen(dir string, t time.Time, lower bool, hook durable.Hook) error {
	d, err := durable.MakeDir(dir, 0o700, hook)
	if err != nil {
		return err
	}
	defer d.Close()
	if seen, err := seenIn(d); err == nil && !lower && !t.After(seen) {
		return nil
	}
	t = t.UTC().Truncate(time.Second)
	return d.WriteJSON(seenName, seenFile{Version: 1, PlatformTime: t, Unix: t.Unix()}, 0o600, "clock")
}
