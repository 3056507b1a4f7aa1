package rootfs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

// LiveLayer is the writable layer of the running root, as a live change goes on with it over another root image. Nil is one that
// doesn't outlive the boot, which nothing is written down of.
//
// What a power cut leaves must be right for whichever root boots then. So Begin comes before the layer is
// settled for the last time and before the first mount; Done after the last one, after what was changed in that moment is mended and synced, and
// before the new generation becomes the current one; and Back once the old root is what is mounted again. Between Begin and Done the record says of the
// layer that it is "from"'s, with a little of "to".
type LiveLayer struct {
	stateDir, name string
	hook           durable.Hook
}

// LiveLayerOf returns the layer in a directory of record that has this upper.
func LiveLayerOf(stateDir string, upper *os.File, hook durable.Hook) (*LiveLayer, error) {
	l := &LiveLayer{stateDir: stateDir, name: filepath.Base(filepath.Dir(upper.Name())), hook: hook}
	at, err := openDir(filepath.Join(stateDir, uppersName, l.name, upperName))
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // it lies elsewhere
	}
	defer at.Close()
	if same, err := sameDir(at, upper); err != nil || !same {
		return nil, err
	}
	return l, nil
}

// Begin writes down that the root image "to" may come beneath the layer, from now on.
func (l *LiveLayer) Begin(from, to fsverity.Digest) error {
	return l.change(func(r *layerRecord, _ keptLayers) {
		r.over(from)
		r.also(to)
		r.New = fsverity.Digest{}
	})
}

// Done writes down that "to" is beneath the layer, and that its boots use this layer.
func (l *LiveLayer) Done(to fsverity.Digest) error {
	return l.change(func(r *layerRecord, all keptLayers) {
		r.over(to)
		if used := all.of(to, all.named(l.name).level); used == nil || used.name != l.name {
			r.claim(to, all.nextTurn())
			r.New = to
		}
	})
}

// Back writes down that the change from "from" to "to" was taken back: "from" is beneath the layer.
func (l *LiveLayer) Back(from, to fsverity.Digest) error {
	return l.change(func(r *layerRecord, _ keptLayers) {
		r.over(from)
		r.also(to)
		if r.New == to {
			r.disclaim(to)
		}
		r.New = fsverity.Digest{}
	})
}

// change replaces the record, in one step, if it isn't what it is to be.
func (l *LiveLayer) change(do func(r *layerRecord, all keptLayers)) error {
	if l == nil {
		return nil
	}
	dir, err := durable.OpenDir(filepath.Join(l.stateDir, uppersName), l.hook)
	if err != nil {
		return fmt.Errorf("write down what the writable layer lies over: %w", err)
	}
	defer dir.Close()
	all, err := readLayers(dir)
	if err == nil {
		err = all.change(dir, l.name, do)
	}
	if err != nil {
		return fmt.Errorf("write down what the writable layer lies over: %w", err)
	}
	return nil
}

func (ls keptLayers) change(dir *durable.Dir, name string, do func(r *layerRecord, all keptLayers)) error {
	l := ls.named(name)
	switch {
	case l == nil:
		return &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case l.damaged != nil:
		return fmt.Errorf("what it lay over isn't known: %w", l.damaged)
	}
	next := *l
	next.record = l.record.clone()
	do(&next.record, ls)
	if next.record.equal(&l.record) {
		return nil
	}
	return next.write(dir)
}
