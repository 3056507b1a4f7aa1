package retain

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/store"
)

// Bounds of what a pull takes. A manifest says how large layers are compressed, and is signed; nothing says how large
// they are unpacked, nor how much of that is here already.
const (
	// expansion is what a compressed layer may become on the disk, in blocks: Debian's /usr, by zstd at level 3, becomes 2.8 to
	// 3.2 times as large. A tar of small files grows by their last blocks.
	expansion    = 4
	tarExpansion = 2
	// newShare is the part of a module that is taken to be new where another version of it is here: one in so many.
	newShare = 4
	// parallel is how many layers of a module are downloaded at a time (ociimage.PullOptions).
	parallel = 3
	// fileSize is how small the average file of a layer is at least, unpacked: Debian's are of about 20 KiB.
	fileSize = 8 << 10
	// unpackedMax is the most that one module may unpack to (layer.DefaultLimits).
	unpackedMax = 32 << 30
)

// The reserve is what a pull leaves free: a fiftieth of the file system, within bounds, for logs and for
// the records of the next boots.
const (
	reserveShare = 50
	reserveMin   = 64 << 20
	reserveMax   = 1 << 30
	reserveFiles = 1000
)

// Pull is a module that is to be fetched.
type Pull struct {
	Name   string
	Layers []store.Layer
}

// PullsOf returns those of the offers that have to be fetched.
func PullsOf(offers []*assemble.Offer) []Pull {
	var pulls []Pull
	for _, o := range offers {
		if !o.Here {
			pulls = append(pulls, Pull{Name: o.Wanted.Name, Layers: o.Layers()})
		}
	}
	return pulls
}

// Need is what pulls take on the disk at the most, as far as the signed sizes tell.
type Need struct {
	// Download is compressed, while layers are under way; Unpacked is what stays; Files is how many inodes.
	Download, Unpacked, Files int64
}

// Bytes is all of it.
func (n Need) Bytes() int64 { return saturated(n.Download, n.Unpacked) }

// Here is what a store has of what is to be pulled.
type Here struct {
	// Modules are the names of the modules that it has in some version, Layers the digests of their layers.
	Modules, Layers map[string]bool
	// Begun is how many bytes it has of a download, by the layer's digest.
	Begun map[string]int64
}

// NeedOf adds up pulls. Modules come one after another, the largest layers of one side by side. What a layer of
// another module holds is here already.
func NeedOf(pulls []Pull, here Here) Need {
	var need Need
	for _, p := range pulls {
		var sizes []int64
		var grows int64
		seen := make(map[string]bool)
		for _, l := range p.Layers {
			if seen[l.Digest] {
				continue
			}
			seen[l.Digest] = true
			size := max(l.Size, 0)
			sizes = append(sizes, max(0, size-here.Begun[l.Digest]))
			if !here.Layers[l.Digest] {
				grows = saturated(grows, times(size, expansionOf(l.MediaType)))
			}
		}
		if here.Modules[p.Name] {
			grows /= newShare
		}
		slices.SortFunc(sizes, func(a, b int64) int { return cmp.Compare(b, a) })
		var download int64
		for _, s := range sizes[:min(parallel, len(sizes))] {
			download = saturated(download, s)
		}
		need.Download = max(need.Download, download)
		need.Unpacked = saturated(need.Unpacked, min(grows, unpackedMax))
	}
	need.Files = need.Unpacked / fileSize
	return need
}

func expansionOf(mediaType string) int64 {
	if strings.HasSuffix(mediaType, "tar") {
		return tarExpansion
	}
	return expansion
}

func saturated(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

func times(a, factor int64) int64 {
	if a > math.MaxInt64/factor {
		return math.MaxInt64
	}
	return a * factor
}

// Reserve returns what a pull leaves free of a file system, in bytes.
func Reserve(room store.Room) int64 {
	return min(max(room.TotalBytes/reserveShare, reserveMin), reserveMax)
}

// Missing returns the bytes and inodes that are missing for a need, beyond the reserve; 0 and 0 where it fits.
func Missing(need Need, room store.Room) (bytes, files int64) {
	if n := need.Bytes(); n > 0 {
		bytes = max(0, saturated(n, Reserve(room))-room.AvailableBytes)
	}
	if room.TotalFiles > 0 && need.Files > 0 {
		files = max(0, need.Files+reserveFiles-room.FreeFiles)
	}
	return bytes, files
}

// Preflight refuses pulls that would not fit on the store's disk, before the first byte: with what is missing, and
// what a collection by o would free. The unpacked size isn't known: it is estimated on the safe side for a module that is new
// here, and for a new version of one as if a quarter of it were new. One that is let through may still find the disk
// full, which leaves the store as it was; one that is refused might have fitted.
func Preflight(ctx context.Context, st *store.Store, pulls []Pull, o Options) error {
	if len(pulls) == 0 {
		return nil
	}
	here, err := hereIn(st)
	if err != nil {
		return err
	}
	need := NeedOf(pulls, here)
	room, err := st.Room()
	if err != nil {
		return err
	}
	bytes, files := Missing(need, room)
	if bytes == 0 && files == 0 {
		return nil
	}
	hint := "free space on " + st.Path()
	if would, err := Plan(ctx, st, o); err == nil && would.FreedBytes > 0 {
		hint = fmt.Sprintf("run powernode-agent gc, which frees %s", mebibytes(would.FreedBytes))
		if would.FreedBytes < bytes {
			hint += "; that isn't enough: " + "free space on " + st.Path() + ", too"
		}
	}
	if bytes == 0 {
		return fault.New(fault.Refuse, fault.Mount, hint, "pull %s: that may take %d files, and %s has room for %d (%d are kept free)",
			names(pulls), need.Files, st.Path(), room.FreeFiles, reserveFiles)
	}
	return fault.New(fault.Refuse, fault.Mount, hint, "pull %s: that may take %s (%s to download, %s unpacked), and %s has %s free, of which %s are kept: %s are missing",
		names(pulls), mebibytes(need.Bytes()), mebibytes(need.Download), mebibytes(need.Unpacked), st.Path(), mebibytes(room.AvailableBytes), mebibytes(Reserve(room)), mebibytes(bytes))
}

// hereIn returns what the store has. A damaged record hides its module, which counts as not here.
func hereIn(st *store.Store) (Here, error) {
	here := Here{Modules: make(map[string]bool), Layers: make(map[string]bool), Begun: make(map[string]int64)}
	modules, _ := st.ListModules()
	for _, m := range modules {
		here.Modules[m.Name] = true
		for _, l := range m.Layers {
			here.Layers[l.Digest] = true
		}
	}
	partials, err := st.Partials()
	for _, p := range partials {
		here.Begun[p.Digest] = p.Bytes
	}
	return here, err
}

func names(pulls []Pull) string {
	if len(pulls) == 1 {
		return pulls[0].Name
	}
	return fmt.Sprintf("%d modules", len(pulls))
}

func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", (n+1<<20-1)>>20) }
