package modulebuild

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/tree"
)

// Options says what to build, from what, and where to put it.
type Options struct {
	// Manifest is the text of manifest.yaml. It goes into the module as it is.
	Manifest []byte
	// Version has to pass module.CheckVersion.
	Version string
	// Layout is the directory for the OCI layout; it is empty or not there, or with Replace an
	// older layout. It appears when it is whole.
	Layout  string
	Replace bool

	// FromDir is the directory that holds the module's files; "" for a module of packages.
	FromDir string
	// KeepAttributes takes owners, modes, times and xattrs from FromDir as they are.
	KeepAttributes bool

	// Bases are OCI layouts of the modules to build upon, the lowest first; without one, a
	// module of packages is a whole system.
	Bases []string
	// Suite is the Debian suite, such as "bookworm".
	Suite string
	// Variant is mmdebstrap's word for the packages that a whole system begins with: Variants
	// lists them.
	Variant string
	// Mirrors are what to install from: URLs of Debian mirrors, in which {snapshot} stands for
	// the manifest's build.apt_snapshot, or whole lines of a sources.list. Without one, the
	// servers and keys are those that apt on this machine uses for its own Debian release.
	Mirrors []string

	// Architecture is a GOARCH; "" is this machine's for packages, and for a directory that of
	// the programs in it, or ociimage.AnyArchitecture where there are none.
	Architecture string
	// Epoch bounds the files' times; the package documentation says what the zero value means.
	Epoch time.Time

	// WorkDir is where to work, "" for /var/tmp. It needs room for about twice the system, and a
	// file system that can be the upper layer of an overlay.
	WorkDir string
	// Log gets the output of the programs that are run; nil for none.
	Log io.Writer
	// Stage is called with what begins, in a few words; nil for no calls.
	Stage func(string)
}

// The defaults of a build of packages.
const (
	DefaultSuite   = "bookworm"
	DefaultVariant = "essential"
)

// Variants are the values of Options.Variant.
var Variants = []string{"essential", "apt", "required", "minbase", "important", "standard"}

// Result says what was built.
type Result struct {
	Name         string `json:"name"`
	Version      string `json:"version"`
	Architecture string `json:"architecture"`
	Layout       string `json:"layout"`
	// Digest is that of the OCI manifest as built; publishing adds the seal, which changes it.
	Digest string `json:"digest"`
	// Entries is the number of names in the tree, Bytes the size of its files, LayerBytes that
	// of the compressed layer.
	Entries    int       `json:"entries"`
	Bytes      uint64    `json:"bytes"`
	LayerBytes int64     `json:"layer_bytes"`
	Epoch      time.Time `json:"epoch"`
	// Packages are those in the module.
	Packages []Package `json:"packages,omitempty"`
	// Users are the lines of the module's sysusers.d file.
	Users []string `json:"users,omitempty"`
	// Removed are paths of the base that the packages took away, which a module can't.
	Removed []string `json:"removed,omitempty"`
	// Skipped are sockets, which an image can't hold.
	Skipped []string `json:"skipped,omitempty"`
}

// builder is one build.
type builder struct {
	Options
	manifest *module.Manifest
	// work is a directory of this build alone.
	work   string
	start  time.Time
	result Result
}

// Build makes a module. The errors are fault.Refuse where the input can't be built (area Input)
// or the archive's signature doesn't hold (Verify), fault.Retry where the mirror can't be reached
// (Platform) or the disk is full (Mount).
func Build(ctx context.Context, o Options) (*Result, error) {
	b, err := newBuilder(o)
	if err != nil {
		return nil, err
	}
	what := "build module " + b.manifest.Name
	if b.work, err = os.MkdirTemp(b.WorkDir, "powernode-build-"); err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "name a directory to work in", "%s: %w", what, err)
	}
	err = b.build(ctx)
	if removeErr := os.RemoveAll(b.work); err == nil {
		err = removeErr
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, diskFull(err, b.work))
	}
	return &b.result, nil
}

func newBuilder(o Options) (*builder, error) {
	if o.Suite == "" {
		o.Suite = DefaultSuite
	}
	if o.Variant == "" {
		o.Variant = DefaultVariant
	}
	if o.WorkDir == "" {
		o.WorkDir = "/var/tmp"
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	if o.Stage == nil {
		o.Stage = func(string) {}
	}
	var err error
	if o.WorkDir, err = filepath.Abs(o.WorkDir); err != nil {
		return nil, fmt.Errorf("find the directory to work in: %w", err)
	}
	b := &builder{Options: o, start: time.Now()}
	if b.manifest, err = module.ParseManifest(o.Manifest); err != nil {
		return nil, err
	}
	refuse := func(hint, format string, args ...any) (*builder, error) {
		return nil, fault.New(fault.Refuse, fault.Input, hint, "build module "+b.manifest.Name+": "+format, args...)
	}
	packages := len(b.manifest.PackageSpec) > 0
	pins := b.manifest.Build
	switch {
	case o.Version == "":
		return refuse("name one with --version", "there is no version")
	case o.FromDir == "" && !packages:
		return refuse("list packages in package_spec, or name a directory with --from-dir", "there is nothing to build it from")
	case o.FromDir != "" && packages:
		return refuse("build the files as a module of their own", "it has a package_spec, and a directory is named as well")
	case o.FromDir != "" && len(o.Bases) > 0:
		return refuse("leave --base out", "a module from a directory needs no base")
	case !slices.Contains(Variants, o.Variant):
		return refuse("use one of essential, apt, required, minbase, important, standard", "variant %.60q is unknown", o.Variant)
	case !validSuite(o.Suite):
		return refuse("use a name such as bookworm", "suite %.60q is not a name", o.Suite)
	case pins.UbuntuDigest+pins.FirmwareRepo+pins.FirmwareRef+pins.K3sVersion != "":
		return refuse("leave ubuntu_digest, firmware_repo, firmware_ref and k3s_version out", "its manifest pins what this builder doesn't build from")
	case packages && os.Geteuid() != 0:
		return refuse("run it as root", "unpacking packages takes root's rights")
	}
	if err := module.CheckVersion(o.Version); err != nil {
		return nil, err
	}
	return b, b.checkLayout()
}

func (b *builder) build(ctx context.Context) error {
	var c *content
	var err error
	switch {
	case b.FromDir != "":
		c, err = b.fromDir()
	case len(b.Bases) == 0:
		c, err = b.bootstrap(ctx)
	default:
		c, err = b.install(ctx)
	}
	if err != nil {
		return err
	}
	if err := c.selectSpec(b.manifest.FileSpec, b.manifest.Mask); err != nil {
		return err
	}
	if c.root.Len() == 0 {
		return fault.New(fault.Refuse, fault.Input, "check file_spec and mask against the files", "no file is left in it")
	}
	if len(b.result.Users) > 0 {
		c.addText("usr/lib/sysusers.d/powernode-"+b.manifest.Name+".conf", sysusersFile(b.manifest.Name, b.result.Users))
	}
	c.addText(module.ManifestPath(b.manifest.Name), string(b.Manifest))
	b.finish(c)
	b.Stage("write the image")
	return b.write(ctx, c)
}

// finish settles the times and counts.
func (b *builder) finish(c *content) {
	if b.Epoch.IsZero() && b.FromDir == "" {
		b.Epoch = newestBefore(c.root, b.start)
	} else if b.Epoch.IsZero() {
		b.Epoch = DefaultEpoch
	}
	b.Epoch = b.Epoch.UTC().Truncate(time.Second)
	if b.FromDir != "" && !b.KeepAttributes {
		flatten(c.root, b.Epoch)
	} else {
		clamp(c.root, b.Epoch)
	}
	for _, n := range c.own {
		n.Mtime = tree.Time{Sec: b.Epoch.Unix()}
	}
	r := &b.result
	r.Name, r.Version, r.Epoch = b.manifest.Name, b.Version, b.Epoch
	r.Skipped = c.skipped
	for path, n := range c.root.Walk() {
		if path == "" {
			continue
		}
		r.Entries++
		r.Bytes += n.Size
	}
}

// fromDir reads the module's files from a directory.
func (b *builder) fromDir() (*content, error) {
	b.Stage("read " + b.FromDir)
	return scan(b.FromDir, false)
}

// debianArchitecture returns the architecture to install packages for; Debian's names are Go's
// for those that this project supports.
func (b *builder) debianArchitecture() string {
	if b.Architecture != "" {
		return b.Architecture
	}
	return runtime.GOARCH
}
