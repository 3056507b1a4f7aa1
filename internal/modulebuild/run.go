package modulebuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
)

// program is a shell script to run as the first process of namespaces of its own: when it ends,
// or is ended, every process that it started ends and every mount that it made is gone.
type program struct {
	script string
	args   []string
	env    []string
}

// run runs a program, and makes one sentence of what it says when it fails.
func (b *builder) run(ctx context.Context, p program) error {
	// The child is ended with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", p.script, "powernode-build"}, p.args...)...)
	cmd.Env, cmd.Dir = p.env, b.work
	kept := &tail{}
	out := io.MultiWriter(b.Log, kept)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Unshareflags: unix.CLONE_NEWNS,
		Pdeathsig:    unix.SIGKILL,
		Setsid:       true, // without the operator's terminal, into which input can be pushed
	}
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*exec.ExitError](err); !ok {
		return fmt.Errorf("run a program in namespaces of its own: %w", err)
	}
	return b.explain(kept.String())
}

// tail keeps the last lines of an output.
type tail struct{ buf bytes.Buffer }

const tailMax = 256 << 10

func (t *tail) Write(p []byte) (int, error) {
	if t.buf.Len() > 2*tailMax {
		t.buf.Next(t.buf.Len() - tailMax)
	}
	return t.buf.Write(p)
}

func (t *tail) String() string { return t.buf.String() }

// explanations turn what apt, dpkg and mmdebstrap say into errors, the first that matches. $1 is
// the first group's text.
var explanations = []struct {
	form *regexp.Regexp
	kind fault.Kind
	area fault.Area
	text string
	hint string
}{
	{regexp.MustCompile(`E: Unable to locate package (\S+)`), fault.Refuse, fault.Input, "there is no package $1 in Debian {suite}", "correct package_spec, or name another --suite"},
	{regexp.MustCompile(`E: Version '([^']+' for '[^']+)' was not found`), fault.Refuse, fault.Input, "there is no version '$1' in Debian {suite}", "correct package_spec, or pin a snapshot that has it"},
	{regexp.MustCompile(`E: Package '?([^' ]+)'? has no installation candidate`), fault.Refuse, fault.Input, "there is no package $1 in Debian {suite}", "correct package_spec, or name another --suite"},
	{regexp.MustCompile(`(No space left on device)`), fault.Retry, fault.Mount, "the disk is full", "free some space in {work}"},
	{regexp.MustCompile(`(Could not resolve '[^']+'|Temporary failure resolving '[^']+'|Could not connect to \S+|Unable to connect to \S+|Connection timed out|Connection failed|Connection refused|Could not wait for server fd)`), fault.Retry, fault.Platform, "the package mirror can't be reached: $1", "check the network, or name another --mirror"},
	{regexp.MustCompile(`(NO_PUBKEY \S+|is not signed|The following signatures were invalid|signatures couldn't be verified)`), fault.Refuse, fault.Verify, "the package archive's signature doesn't hold: $1", "install the archive's keyring, such as debian-archive-keyring"},
	{regexp.MustCompile(`The repository '([^']+)' does not have a Release file`), fault.Refuse, fault.Input, "the mirror has no such suite: $1", "check --suite and --mirror"},
	{regexp.MustCompile(`E: Failed to fetch (\S+)`), fault.Retry, fault.Platform, "the package mirror doesn't give $1", "try again, or name another --mirror"},
	{regexp.MustCompile(`The following packages have unmet dependencies:\s*\n\s*(.*)`), fault.Refuse, fault.Input, "the packages don't fit together: $1", "correct package_spec, or build the base anew from the same mirror"},
	{regexp.MustCompile(`(wrong fs type, bad option, bad superblock on overlay)`), fault.Refuse, fault.Input, "{work} can't be the upper layer of an overlay", "name a directory on a disk with --work-dir"},
	{regexp.MustCompile(`E: run ` + keepAccounts + ` in the base: (.+)`), fault.Refuse, fault.Input, "the base's users and groups can't be read after its systemd-sysusers: $1", "build the base again, or name another with --base"},
	{regexp.MustCompile(`dpkg: error processing (?:package|archive) (\S+)`), fault.Broken, fault.General, "package $1 can't be installed", "see what it says with --verbose"},
	{regexp.MustCompile(`(?m)^(?:E: |dpkg: error: )(.+)$`), fault.Broken, fault.General, "$1", "see the whole output with --verbose"},
}

func (b *builder) explain(output string) error {
	fill := strings.NewReplacer("{suite}", b.Suite, "{work}", b.WorkDir)
	for _, e := range explanations {
		if m := e.form.FindStringSubmatch(output); m != nil {
			text := fill.Replace(strings.ReplaceAll(e.text, "$1", oneLine(m[1])))
			return fault.New(e.kind, e.area, fill.Replace(e.hint), "install packages: %s", text)
		}
	}
	lines := strings.Split(strings.TrimSpace(output), "\n")
	return fault.New(fault.Broken, fault.General, "see the whole output with --verbose", "install packages: %s", oneLine(lines[len(lines)-1]))
}

// oneLine makes a short line of what a program said.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 300 {
		s = s[:300] + "..."
	}
	return s
}

// diskFull gives an error of a full disk its kind and remedy.
func diskFull(err error, dir string) error {
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	return fault.New(fault.Retry, fault.Mount, "free some space in the file system of "+dir+" and of the layout", "the disk is full: %w", err)
}

// sysusersFile returns the text of a module's sysusers.d file.
func sysusersFile(name string, lines []string) string {
	return "# The users and groups of the packages in the module " + name + ".\n" + strings.Join(lines, "\n") + "\n"
}
