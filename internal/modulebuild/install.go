package modulebuild

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/tree"
)

// installScript mounts the base under an overlay and installs the packages there: apt from
// outside, because the base need not have it, dpkg and the maintainer scripts inside (see
// insideDir). They are fetched first, and installed without a network. Its working directory is
// the build's; its arguments are the packages. What it touches below root is in places, and was
// checked; from the first program inside on, only mounts of its own are touched from outside.
//
// Programs inside get proc for reading only: some of it belongs to the whole machine, and root
// needs no capability to write there. This program is theirs for reading only, too, for they can
// find it by /proc/self/exe.
const installScript = `set -eu
mount -t proc proc /proc
echo localhost > /proc/sys/kernel/hostname
for program in dpkg systemd-sysusers ` + keepAccounts + `; do
	: > ` + insideDir + `/$program
	mount --bind "$POWERNODE_BUILDER" ` + insideDir + `/$program
	mount -o remount,bind,ro ` + insideDir + `/$program
done
mount -t overlay -o lowerdir=base,upperdir=upper,workdir=work,redirect_dir=off,metacopy=off,index=off overlay root
for dir in dev proc sys run tmp usr/sbin; do mkdir -p root/$dir; done
printf '#!/bin/sh\nexit 101\n' > root/usr/sbin/policy-rc.d
chmod 755 root/usr/sbin/policy-rc.d
mount -t proc -o nosuid,nodev,noexec proc root/proc
mount -o remount,bind,ro,nosuid,nodev,noexec root/proc
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs root/run
mkdir root` + archivesInside + `
mount --bind archives root` + archivesInside + `
mount -o remount,bind,ro,nosuid,nodev root` + archivesInside + `
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs root/tmp
mount -t tmpfs -o mode=755,nosuid tmpfs root/dev
device() { mknod -m 666 root/dev/$1 c $2 $3; }
for fields in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do device $fields; done
ln -s /proc/self/fd root/dev/fd
mkdir root/dev/shm
if [ -n "$POWERNODE_ACCOUNTS" ]; then
	"$PWD/` + insideDir + `/systemd-sysusers" $POWERNODE_ACCOUNTS
fi
"$PWD/` + insideDir + `/` + keepAccounts + `"
export APT_CONFIG="$PWD/apt.conf"
apt-get -q -o APT::Update::Error-Mode=any update
apt-get -q -y --download-only install "$@"
unshare --net apt-get -q -y install "$@"
`

// accountFile is what a module's file of users and groups is called (see Build). A shell takes
// each such name for one word.
var accountFile = regexp.MustCompile(`^powernode-[A-Za-z0-9._-]+\.conf$`)

// install installs the packages over the bases and takes what that changed.
func (b *builder) install(ctx context.Context) (*content, error) {
	lines, err := b.sourceLines()
	if err != nil {
		return nil, err
	}
	base, err := b.readBases(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkPlaces(base.root, "read the base", "build the base again, or name another with --base"); err != nil {
		return nil, err
	}
	statusBefore, err := base.wholeStatus()
	if err != nil {
		return nil, err
	}
	if err := b.prepare(base, statusBefore, lines); err != nil {
		return nil, err
	}
	b.Stage("install " + strings.Join(b.manifest.PackageSpec, ", ") + " over " + strings.Join(b.Bases, ", "))
	builder, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	env := append(b.debianEnv(), "POWERNODE_BUILDER="+builder, "POWERNODE_ACCOUNTS="+strings.Join(base.accountFiles(), " "))
	if err := b.run(ctx, program{script: installScript, args: b.manifest.PackageSpec, env: env}); err != nil {
		return nil, err
	}
	b.Stage("read what changed")
	return b.capture(base, statusBefore)
}

// prepare lays out the directories that installScript works in.
func (b *builder) prepare(base *content, status string, lines []string) error {
	for _, dir := range []string{"upper", "work", "root", "before", insideDir, "archives/partial", "apt/lists/partial", "apt/parts", "apt/cache", "apt/log"} {
		if err := os.MkdirAll(filepath.Join(b.work, dir), 0o755); err != nil {
			return err
		}
	}
	system := filepath.Join(b.work, "base")
	if err := base.materialize(system); err != nil {
		return fmt.Errorf("unpack the base: %w", err)
	}
	if err := replaceStatus(system, status); err != nil {
		return fmt.Errorf("unpack the base: %w", err)
	}
	if err := os.WriteFile(filepath.Join(b.work, "apt", "status"), []byte(status), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.work, "sources.list"), []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.work, "apt.conf"), []byte(b.aptConf()), 0o644)
}

// replaceStatus gives the system in dir another dpkg status.
func replaceStatus(dir, status string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.Remove(dpkgStatus); err != nil {
		return err
	}
	return root.WriteFile(dpkgStatus, []byte(status), 0o644)
}

// accountFiles returns the names of the files with the users and groups of the modules in a base.
func (c *content) accountFiles() []string {
	dir := c.root.Lookup("usr/lib/sysusers.d")
	if dir == nil {
		return nil
	}
	var names []string
	for name, n := range dir.Entries() {
		if n.Kind == tree.Regular && accountFile.MatchString(name) {
			names = append(names, name)
		}
	}
	return names
}

// aptConf makes this machine's apt install into the base, and work on nothing of its own but its
// keys. It has its state outside of the base, with a copy of dpkg's, so that nothing that lies in
// the base leads it anywhere: only the dpkg that it starts goes inside.
func (b *builder) aptConf() string {
	state := filepath.Join(b.work, "apt")
	parts := filepath.Join(state, "parts")
	arch := b.debianArchitecture()
	settings := [][2]string{
		{"Dir", state},
		{"Dir::State", state},
		{"Dir::State::Lists", filepath.Join(state, "lists")},
		{"Dir::State::Status", filepath.Join(state, "status")},
		{"Dir::Cache", filepath.Join(state, "cache")},
		{"Dir::Cache::Archives", filepath.Join(b.work, "archives")},
		{"Dir::Log", filepath.Join(state, "log")},
		{"Dir::Bin::DPkg", filepath.Join(b.work, insideDir, "dpkg")},
		{"Dir::Etc", state},
		{"Dir::Etc::SourceList", filepath.Join(b.work, "sources.list")},
		{"Dir::Etc::SourceParts", parts},
		{"Dir::Etc::Parts", parts},
		{"Dir::Etc::Main", "/dev/null"},
		{"Dir::Etc::Preferences", "/dev/null"},
		{"Dir::Etc::PreferencesParts", parts},
		{"Dir::Etc::Trusted", "/etc/apt/trusted.gpg"},
		{"Dir::Etc::TrustedParts", "/etc/apt/trusted.gpg.d"},
		{"APT::Architecture", arch},
		{"APT::Architectures::", arch},
		{"APT::Install-Recommends", "false"},
		{"APT::Sandbox::User", "root"},
		{"Acquire::Languages", "none"},
		{"Acquire::Retries", "2"},
		// For five packages or more, apt names dpkg a directory of links; the base can't see it.
		{"DPkg::Install::Recursive", "false"},
		{"DPkg::Install::Recursive::Minimum", "1000000"},
		{"DPkg::Use-Pty", "false"},
		{"DPkg::Options::", "--force-unsafe-io"},
		{"DPkg::Options::", "--force-confdef"},
		{"DPkg::Options::", "--force-confold"},
	}
	if b.manifest.Build.APTSnapshot != "" {
		settings = append(settings, [2]string{"Acquire::Check-Valid-Until", "false"})
	}
	for _, option := range excluded {
		settings = append(settings, [2]string{"DPkg::Options::", "--" + option})
	}
	var conf strings.Builder
	for _, s := range settings {
		fmt.Fprintf(&conf, "%s %s;\n", s[0], strconv.Quote(s[1]))
	}
	return conf.String()
}

// capture makes the module's content of what the overlay caught.
func (b *builder) capture(base *content, statusBefore string) (*content, error) {
	c, err := scan(filepath.Join(b.work, "upper"), true)
	if err != nil {
		return nil, err
	}
	if err := checkPlaces(c.root, "read what the packages made", "correct package_spec, or name another base"); err != nil {
		return nil, err
	}
	stanzas, err := newStanzas(c, statusBefore)
	if err != nil {
		return nil, err
	}
	if len(stanzas) == 0 {
		return nil, fault.New(fault.Refuse, fault.Input, "leave the module out, or correct package_spec", "the base has all of its packages already")
	}
	b.result.Packages = packagesOf(stanzas)
	if b.result.Users, err = b.newUsers(c); err != nil {
		return nil, err
	}
	c.cleanOver()
	var failed error
	pruneEqual(c.root, base.root, func(upper, lower *tree.Node) bool {
		same, err := c.equal(upper, lower)
		if err != nil && failed == nil {
			failed = err
		}
		return same
	})
	if failed != nil {
		return nil, failed
	}
	c.below = base.root
	c.statusFiles(stanzas)
	b.result.Removed = c.takenAway(base.root)
	return c, nil
}

// newStanzas returns the packages that dpkg has now and hadn't before.
func newStanzas(c *content, statusBefore string) ([]stanza, error) {
	after, ok, err := c.read(dpkgStatus, databaseMax)
	if err != nil || !ok {
		return nil, err
	}
	old, err := installed(statusBefore)
	if err != nil {
		return nil, err
	}
	now, err := installed(string(after))
	if err != nil {
		return nil, err
	}
	return added(old, now), nil
}

// newUsers returns the sysusers.d lines for the users and groups that the packages added.
func (b *builder) newUsers(c *content) ([]string, error) {
	var before, after [2]string
	for i, name := range []string{"passwd", "group"} {
		old, err := os.ReadFile(filepath.Join(b.work, "before", name))
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		now, ok, err := c.read("etc/"+name, databaseMax)
		if err != nil {
			return nil, err
		}
		if !ok {
			now = old
		}
		before[i], after[i] = string(old), string(now)
	}
	return sysusers(before[0], before[1], after[0], after[1]), nil
}

// equal reports whether two nodes, the second from an image, hold the same.
func (c *content) equal(upper, lower *tree.Node) (bool, error) {
	if upper.Kind != tree.Regular {
		return upper.Target == lower.Target && upper.Rdev == lower.Rdev, nil
	}
	if upper.Size != lower.Size || upper.Size <= tree.InlineMax {
		return upper.Size == lower.Size && string(upper.Inline) == string(lower.Inline), nil
	}
	f, err := c.open("", upper)
	if err != nil {
		return false, err
	}
	defer f.Close() //nolint:errcheck // only read from
	sum, _, err := fsverity.SumReader(f)
	return sum == lower.Digest, err
}

// takenAway returns the absolute paths of what the overlay's marks hide of the base, except for
// what is nobody's in particular. New directories bear the mark, too, but hide nothing.
func (c *content) takenAway(base *tree.Node) []string {
	drop := append(spec(foreign...), spec(emptied...)...)
	var gone []string
	for _, path := range c.removed {
		if _, hit := drop.Covers(path, false); !hit {
			gone = append(gone, "/"+path)
		}
	}
	for _, path := range c.opaque {
		was, is := base.Lookup(path), c.root.Lookup(path)
		if was == nil || is == nil {
			continue
		}
		for below := range was.Walk() {
			if _, hit := drop.Covers(path+"/"+below, false); !hit && is.Lookup(below) == nil {
				gone = append(gone, "/"+path+"/"+below)
			}
		}
	}
	slices.Sort(gone)
	return gone
}
