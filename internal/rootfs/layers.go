package rootfs

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
)

// layerRecord is the record beside a writable layer on the disk, from its first live change on. A layer without one is its name's
// root's alone.
type layerRecord struct {
	// Over is the root that the layer is used over: what it holds means there what it is to mean.
	Over fsverity.Digest `json:"over"`
	// Also are the other roots that may have been beneath it since it was last settled before a boot. What was there
	// when they came was settled for them; a little of what came since may have been made over them, and not over Over.
	Also []fsverity.Digest `json:"also,omitempty"`
	// Roots are those whose boots use this layer.
	Roots []layerRoot `json:"roots"`
	// New is the root that the last live change put into Roots: it goes again if that change is taken back.
	New fsverity.Digest `json:"new,omitzero"`
}

// layerRoot is a root that a layer is used for.
type layerRoot struct {
	RootDigest fsverity.Digest `json:"root_digest"`
	// Turn tells which of several layers is used: the one with the highest.
	Turn uint64 `json:"turn"`
}

const (
	layerRecordName = "record.json"
	layerRecordMax  = 1 << 20
	// alsoMax and rootsMax bound the lists; the oldest go.
	alsoMax  = 16
	rootsMax = 256
)

// also notes that another root may come beneath the layer.
func (r *layerRecord) also(root fsverity.Digest) {
	r.Also = slices.DeleteFunc(r.Also, func(d fsverity.Digest) bool { return d == root || d == r.Over })
	if root != r.Over {
		r.Also = append(r.Also, root)
	}
	r.Also = r.Also[max(0, len(r.Also)-alsoMax):]
}

// over notes that a root is beneath the layer, where there may have been others.
func (r *layerRecord) over(root fsverity.Digest) {
	was := r.Over
	r.Over = root
	r.also(was)
}

// turn returns the turn that the layer has for a root, and whether it is used for that at all.
func (r *layerRecord) turn(root fsverity.Digest) (uint64, bool) {
	i := slices.IndexFunc(r.Roots, func(l layerRoot) bool { return l.RootDigest == root })
	if i < 0 {
		return 0, false
	}
	return r.Roots[i].Turn, true
}

// claim has the layer be used for a root.
func (r *layerRecord) claim(root fsverity.Digest, turn uint64) {
	r.disclaim(root)
	r.Roots = append(r.Roots, layerRoot{root, turn})
	slices.SortFunc(r.Roots, func(a, b layerRoot) int { return cmp.Compare(a.Turn, b.Turn) })
	r.Roots = r.Roots[max(0, len(r.Roots)-rootsMax):]
}

func (r *layerRecord) disclaim(root fsverity.Digest) {
	r.Roots = slices.DeleteFunc(r.Roots, func(l layerRoot) bool { return l.RootDigest == root })
}

func (r *layerRecord) clone() layerRecord {
	c := *r
	c.Also, c.Roots = slices.Clone(r.Also), slices.Clone(r.Roots)
	return c
}

func (r *layerRecord) equal(o *layerRecord) bool {
	return r.Over == o.Over && r.New == o.New && slices.Equal(r.Also, o.Also) && slices.Equal(r.Roots, o.Roots)
}

// keptLayer is a writable layer on the disk.
type keptLayer struct {
	name   string
	level  mount.Level
	record layerRecord
	// damaged is why the record can't be read: nobody knows then what the layer is for.
	damaged error
}

type keptLayers []keptLayer

// readLayers returns the layers in their directory.
func readLayers(dir *durable.Dir) (keptLayers, error) {
	names, err := dir.Names()
	if err != nil {
		return nil, err
	}
	var layers keptLayers
	for _, name := range names {
		if l, ok := readLayer(dir, name); ok {
			layers = append(layers, l)
		}
	}
	return layers, nil
}

// readLayer reads the record of a layer; ok is false where the name isn't one's. That is the digest of the root that the layer
// began with, the integrity level, and a number where that name was taken.
func readLayer(dir *durable.Dir, name string) (l keptLayer, ok bool) {
	parts := strings.SplitN(name, ".", 3)
	root, err := fsverity.ParseDigest(parts[0])
	if err != nil || len(parts) < 2 {
		return keptLayer{}, false
	}
	l = keptLayer{name: name, level: mount.Level(parts[1])}
	sub, err := dir.Sub(name)
	if err != nil {
		l.damaged = err
		return l, !errors.Is(err, fs.ErrNotExist) // it may go meanwhile
	}
	defer sub.Close()
	err = sub.ReadJSON(layerRecordName, layerRecordMax, &l.record)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.record = layerRecord{Over: root}
		if len(parts) == 2 { // with a number it was killed before it was used
			l.record.claim(root, 0)
		}
	case err == nil && l.record.Over.IsZero():
		l.damaged = errors.New("its record names no root")
	case err != nil:
		l.record, l.damaged = layerRecord{}, err
	}
	return l, true
}

// of returns the layer that a boot of a root uses; nil where it has none yet.
func (ls keptLayers) of(root fsverity.Digest, level mount.Level) *keptLayer {
	var best *keptLayer
	var highest uint64
	for i := range ls {
		l := &ls[i]
		turn, ok := l.record.turn(root)
		if !ok || l.damaged != nil || l.level != level {
			continue
		}
		if best == nil || turn > highest {
			best, highest = l, turn
		}
	}
	return best
}

// named returns the layer of that name; nil where there is none.
func (ls keptLayers) named(name string) *keptLayer {
	i := slices.IndexFunc(ls, func(l keptLayer) bool { return l.name == name })
	if i < 0 {
		return nil
	}
	return &ls[i]
}

// nextTurn returns a turn that is higher than all.
func (ls keptLayers) nextTurn() uint64 {
	var highest uint64
	for _, l := range ls {
		for _, r := range l.record.Roots {
			highest = max(highest, r.Turn)
		}
	}
	return highest + 1
}

// fresh returns a layer of its own for a root, which isn't on the disk yet, and needs no record unless others are there
// for that root.
func (ls keptLayers) fresh(root fsverity.Digest, level mount.Level) *keptLayer {
	l := &keptLayer{name: root.String() + "." + string(level), level: level, record: layerRecord{Over: root}}
	base := l.name
	for n := 2; slices.ContainsFunc(ls, func(o keptLayer) bool { return o.name == l.name }); n++ {
		l.name = base + "." + strconv.Itoa(n)
	}
	var turn uint64
	if l.name != base || ls.of(root, level) != nil {
		turn = ls.nextTurn()
	}
	l.record.claim(root, turn)
	return l
}

// write puts a layer's record on the disk, in one step.
func (l *keptLayer) write(dir *durable.Dir) error {
	sub, err := dir.MakeSub(l.name, 0o700, "layer")
	if err != nil {
		return err
	}
	defer sub.Close()
	return sub.WriteJSON(layerRecordName, l.record, 0o600, "layer-record")
}
