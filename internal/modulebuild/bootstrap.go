package modulebuild

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
)

// mergedHooks lets mmdebstrap make a merged /usr without the package usrmerge and the whole of
// Perl, which that one pulls in on Debian 12.
const mergedHooks = "/usr/share/mmdebstrap/hooks/maybe-merged-usr"

// bootstrapScript runs mmdebstrap with its own view of processes and mounts, which end with it,
// and without the rights that it has no use for. It mounts and makes devices, so those stay.
const bootstrapScript = `set -eu
mount -t proc proc /proc
echo localhost > /proc/sys/kernel/hostname
exec setpriv --inh-caps=-all --bounding-set=` + unused + ` mmdebstrap "$@"
`

// unused are the capabilities that mmdebstrap and what it starts are without.
const unused = "-dac_read_search,-linux_immutable,-net_admin,-net_raw,-sys_module,-sys_rawio,-sys_ptrace,-sys_pacct,-sys_boot,-sys_time,-syslog,-mac_override,-mac_admin"

// bootstrap makes a whole system.
func (b *builder) bootstrap(ctx context.Context) (*content, error) {
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "install mmdebstrap, or build upon another module with --base", "making a whole system takes mmdebstrap, which isn't here")
	}
	lines, err := b.sourceLines()
	if err != nil {
		return nil, err
	}
	target := filepath.Join(b.work, "system")
	args := []string{
		"--mode=root", "--format=directory", "--variant=" + b.Variant,
		"--architectures=" + b.debianArchitecture(), "--include=" + strings.Join(b.manifest.PackageSpec, ","),
		`--aptopt=APT::Install-Recommends "false"`, `--aptopt=Acquire::Languages "none"`,
	}
	if b.manifest.Build.APTSnapshot != "" {
		args = append(args, `--aptopt=Acquire::Check-Valid-Until "false"`)
	}
	for _, option := range excluded {
		args = append(args, "--dpkgopt="+option)
	}
	if _, err := os.Stat(mergedHooks); err == nil {
		args = append(args, "--hook-dir="+mergedHooks)
	}
	args = append(append(args, b.Suite, target), lines...)
	b.Stage("install Debian " + b.Suite + " with " + strconv.Itoa(len(b.manifest.PackageSpec)) + " packages and what they need")
	if err := b.run(ctx, program{script: bootstrapScript, args: args, env: b.debianEnv()}); err != nil {
		return nil, err
	}
	b.Stage("read the system")
	c, err := scan(target, false)
	if err != nil {
		return nil, err
	}
	status, _, err := c.read(dpkgStatus, databaseMax)
	if err != nil {
		return nil, err
	}
	all, err := installed(string(status))
	if err != nil {
		return nil, err
	}
	b.result.Packages = packagesOf(added(nil, all))
	c.cleanBase()
	return c, nil
}

// debianEnv is the environment of package installations: proxies are passed on, nothing else.
func (b *builder) debianEnv() []string {
	epoch := b.Epoch
	if epoch.IsZero() {
		epoch = DefaultEpoch
	}
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "TZ=UTC",
		"DEBIAN_FRONTEND=noninteractive", "DEBCONF_NONINTERACTIVE_SEEN=true", "SOURCE_DATE_EPOCH=" + strconv.FormatInt(epoch.Unix(), 10),
		"TMPDIR=" + b.work,
	}
	for _, name := range []string{"http_proxy", "https_proxy", "ftp_proxy", "no_proxy"} {
		for _, key := range []string{name, strings.ToUpper(name)} {
			if value, ok := os.LookupEnv(key); ok {
				env = append(env, key+"="+value)
			}
		}
	}
	return env
}

// sourceLines returns what to install from, as lines of a sources.list.
func (b *builder) sourceLines() ([]string, error) {
	snapshot := b.manifest.Build.APTSnapshot
	var chosen []source
	for _, mirror := range b.Mirrors {
		if parsed := parseOneLine(mirror); len(parsed) == 1 {
			chosen = append(chosen, parsed[0])
			continue
		}
		s, err := mirrorSource(mirror, b.Suite, snapshot)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, s)
	}
	pinned := false
	for _, mirror := range b.Mirrors {
		pinned = pinned || strings.Contains(mirror, "{snapshot}")
	}
	if snapshot != "" && !pinned {
		return nil, fault.New(fault.Refuse, fault.Input, "name a mirror that keeps snapshots, with {snapshot} in its URL, by --mirror", "its manifest pins apt_snapshot %s, and no mirror has it", snapshot)
	}
	if len(chosen) == 0 {
		var err error
		if chosen, err = (machine{etc: "/etc"}).debianSources(b.Suite); err != nil {
			return nil, err
		}
	}
	var lines []string
	for i, s := range chosen {
		keyFile := filepath.Join(b.work, "key-"+strconv.Itoa(i)+".asc")
		if strings.Contains(s.signedBy, "\n") {
			if err := os.WriteFile(keyFile, []byte(s.signedBy), 0o644); err != nil {
				return nil, err
			}
		}
		lines = append(lines, s.line(keyFile))
	}
	return lines, nil
}

func validSuite(s string) bool {
	if s == "" || len(s) > 100 {
		return false
	}
	for i, c := range []byte(s) {
		alnum := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("._+-/", rune(c))) {
			return false
		}
	}
	return true
}
