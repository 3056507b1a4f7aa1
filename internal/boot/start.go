package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/bootconfig"
	"github.com/powernode/powernode-agent/internal/fault"
)

// The kernel's files that a boot begins with.
const (
	consolePath = "/dev/console"
	cmdlinePath = "/proc/cmdline"
)

// prepare finds out how the boot is to go: the kernel file systems, the console, what command line and
// boot.yaml say, and what of it the trust policy allows.
func (b *boot) prepare(context.Context) (string, error) {
	if b.mode == Machine {
		if b.unprepared != nil {
			if b.unprepared = mountAPI(false); b.unprepared != nil {
				return "", b.unprepared
			}
		}
		if err := takeConsole(); err != nil {
			b.remark(err.Error(), "")
		}
	}
	b.voice.journal.change(func(d *Journal) { d.BootID = bootID() })
	file, err := readSettings(b.config.Settings)
	if err != nil {
		return "", err
	}
	line, err := readBounded(cmdlinePath, bootconfig.CmdlineMax)
	if err != nil {
		return "", err
	}
	settings, remarks, err := bootconfig.Load(file, string(line))
	for _, r := range remarks {
		b.remark(r.Text, r.Hint)
	}
	if err != nil {
		return "", err
	}
	b.settings = settings
	b.cmdline = bootconfig.Split(string(line))
	if b.mode == Machine {
		quiet(b.cmdline)
	}
	trust, err := b.loadTrust()
	if err != nil {
		return "", err
	}
	b.allow(trust)
	said := "settings of the kernel command line"
	if file != nil {
		said += " and " + b.config.Settings
	}
	return said, nil
}

// allow holds the settings to the trust policy.
func (b *boot) allow(trust *Trust) {
	s := &b.settings
	if trust.EphemeralRoot && (s.Upper != bootconfig.Tmpfs || s.Etc != bootconfig.Ephemeral) {
		s.Upper, s.Etc = bootconfig.Tmpfs, bootconfig.Ephemeral
		b.remark("the trust policy wants an ephemeral root: upper=persist and etc=persistent don't count", "")
	}
	at := s.Break
	if at == "" {
		return
	}
	known := slices.ContainsFunc(b.course.stages[1:], func(st Stage) bool { return st.Name == at })
	switch {
	case b.mode != Machine:
		b.remark("powernode.break doesn't count here: another's initramfs has its own", "")
	case !trust.RecoveryShell:
		b.remark("powernode.break doesn't count: the trust policy has no recovery_shell", "")
	case !known:
		b.remark(fmt.Sprintf("powernode.break=%s doesn't count: there is no such stage to stop before", at), "")
	default:
		b.course.breakAt = at
	}
}

// readSettings returns the text of boot.yaml, nil where there is none.
func readSettings(path string) ([]byte, error) {
	text, err := readBounded(path, bootconfig.FileMax)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "correct it and build the initramfs anew", "read the settings of the boot: %w", err)
	}
	if text == nil {
		text = []byte{}
	}
	return text, nil
}

func readBounded(path string, most int64) ([]byte, error) {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := openRegular(root, filepath.Base(path))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s is larger than %d bytes", path, most)
	}
	return data, err
}

// takeConsole makes the console standard input, output and error of this process: what the kernel
// opened before may have been another, or none.
func takeConsole() error {
	console, err := os.OpenFile(consolePath, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("open the console: %w", err)
	}
	defer console.Close()
	for fd := range 3 {
		if err := unix.Dup3(int(console.Fd()), fd, 0); err != nil {
			return fmt.Errorf("open the console: %w", err)
		}
	}
	return nil
}

// consoleLevel is the least urgent of the kernel's messages that go to the console beside ours:
// errors (linux/kern_levels.h), where the kernel's own default has everything but debugging.
const consoleLevel = 4

// quiet keeps the kernel's chatter off the console, unless the command line says how much it wants.
func quiet(line []bootconfig.Parameter) {
	for _, p := range line {
		if slices.Contains([]string{"loglevel", "debug", "quiet", "ignore_loglevel"}, p.Name) {
			return
		}
	}
	// SYSLOG_ACTION_CONSOLE_LEVEL of syslog(2).
	_, _, _ = unix.Syscall(unix.SYS_SYSLOG, 8, 0, consoleLevel)
}

// blocked returns the modules that the command line forbids, as modprobe reads it.
func blocked(line []bootconfig.Parameter) []string {
	var out []string
	for _, name := range []string{"modprobe.blacklist", "module_blacklist"} {
		for _, v := range bootconfig.Values(line, name) {
			out = append(out, strings.Split(v, ",")...)
		}
	}
	return out
}
