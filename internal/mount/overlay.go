package mount

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// layering says how this kernel's overlay takes its layers.
type layering struct {
	// appends: lowerdir+ and datadir+ exist (Linux 6.7). Else one string, lowerdir=LAYER::DATA.
	appends bool
	// descriptors: layers may be given as open directories (Linux 6.13). Else as paths.
	descriptors bool
	// detached: a layer may lie in a mount that is attached nowhere (Linux 6.15).
	detached bool
}

// overlayLayers are the directories of a union; upper and work are both nil in a read-only one,
// stranger in one whose upper knows no other image.
type overlayLayers struct {
	image, stranger, data, upper, work *os.File
}

// options returns the options of a union in the order in which the kernel wants them. It is pure
// but for looking up the paths of open directories.
//
//   - metacopy=on: the image's files are only metadata that point into the data layer; 6.12
//     wants it said although data-only layers imply it.
//   - redirect_dir=on: the pointers are redirects, and a renamed directory needs no copy.
//   - index=off, whatever the kernel's default is: an index ties the upper to one lower layer,
//     and a new generation gets the old upper (design D6). The price: a hard link to a file of
//     the image gets a copy of its own when it is written.
func (l overlayLayers) options(how layering, source string, level Level, volatile bool) []Option {
	options := []Option{
		String("source", source),
		String("metacopy", "on"),
		String("redirect_dir", "on"),
		String("index", "off"),
	}
	if level == Enforced {
		options = append(options, String("verity", "require"))
	}
	switch {
	case how.appends && l.stranger != nil:
		options = append(options, how.layer("lowerdir+", l.image), how.layer("lowerdir+", l.stranger), how.layer("datadir+", l.data))
	case how.appends:
		options = append(options, how.layer("lowerdir+", l.image), how.layer("datadir+", l.data))
	case l.stranger != nil:
		options = append(options, String("lowerdir", procPath(l.image)+":"+procPath(l.stranger)+"::"+procPath(l.data)))
	default:
		options = append(options, String("lowerdir", procPath(l.image)+"::"+procPath(l.data)))
	}
	if l.upper != nil {
		options = append(options, how.layer("upperdir", l.upper), how.layer("workdir", l.work))
		if volatile {
			options = append(options, Flag("volatile"))
		}
	}
	return options
}

func (how layering) layer(key string, dir *os.File) Option {
	if how.descriptors {
		return Descriptor(key, dir)
	}
	return String(key, layerPath(dir))
}

// layerPath returns a path for an open directory that fits into an option: the real one, which
// tells a reader of the mount table more, if it still leads to this directory; else the
// descriptor's. A backslash would be taken for an escape in upperdir and workdir.
func layerPath(dir *os.File) string {
	path, err := os.Readlink(procPath(dir))
	if err != nil || len(path) > stringMax || strings.Contains(path, `\`) {
		return procPath(dir)
	}
	var open, named unix.Stat_t
	if unix.Fstat(int(dir.Fd()), &open) != nil || unix.Stat(path, &named) != nil {
		return procPath(dir)
	}
	if open.Dev != named.Dev || open.Ino != named.Ino {
		return procPath(dir)
	}
	return path
}
