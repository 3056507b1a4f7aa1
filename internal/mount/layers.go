package mount

import (
	"os"
	"runtime"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
)

// LayersSpec describes an overlay of whole directories, without a root image and object store: a
// file of a lower layer is its own content. All files stay the caller's.
type LayersSpec struct {
	// Source is what the mount table shows as the overlay's source.
	Source string
	// Lowers are the read-only layers, the uppermost first. Before Linux 6.15 each must lie in a
	// mount that is attached somewhere while Layers runs; not after.
	Lowers []*os.File
	// Upper and Work are directories in one mount. The kernel wants Work empty.
	Upper, Work *os.File
}

// Layers returns the overlay as a detached mount. Nothing in its upper refers to a lower layer, so
// that the layers may be others the next time: whatever is changed is copied up whole
// (metacopy=off), and renaming a directory of a lower layer gives EXDEV (redirect_dir=off), upon
// which mv(1) and its like copy. Those two go together: where metacopy is on the kernel insists on
// redirects too.
func Layers(spec LayersSpec) (*Mount, error) {
	if len(spec.Lowers) == 0 || spec.Upper == nil || spec.Work == nil {
		return nil, fault.New(fault.Broken, fault.Mount, "", "mount an overlay: lower, upper and work directories must be given")
	}
	how := probeLayering()
	options := []Option{
		String("source", spec.Source),
		String("metacopy", "off"),
		String("redirect_dir", "off"),
		String("index", "off"),
	}
	if how.appends {
		for _, lower := range spec.Lowers {
			options = append(options, how.layer("lowerdir+", lower))
		}
	} else {
		paths := make([]string, len(spec.Lowers))
		for i, lower := range spec.Lowers {
			paths[i] = procPath(lower)
		}
		options = append(options, String("lowerdir", strings.Join(paths, ":")))
	}
	options = append(options, how.layer("upperdir", spec.Upper), how.layer("workdir", spec.Work))
	m, err := New("overlay", 0, options...)
	runtime.KeepAlive(spec) // an option may name a directory by the number of its descriptor
	return m, err
}
