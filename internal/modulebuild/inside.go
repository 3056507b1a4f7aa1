package modulebuild

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// The programs of a base are run by this program itself, started under their names from a
// directory of this name: apt starts its dpkg and nothing else, a shell can't leave a root for
// good, and no tool that every Debian has can do both and give up rights as well.
const insideDir = "powernode-build-inside"

const (
	// keepAccounts is not a program of the base: it copies its users and groups out.
	keepAccounts = "keep-accounts"
	// archivesInside is where the base's dpkg finds what apt fetched.
	archivesInside = "/run/powernode-build/"
)

// init takes the program over if it was started from insideDir. It is done here because tests
// start their own program so, too.
func init() {
	if len(os.Args) == 0 || !filepath.IsAbs(os.Args[0]) || filepath.Base(filepath.Dir(os.Args[0])) != insideDir {
		return
	}
	name, work := filepath.Base(os.Args[0]), filepath.Dir(filepath.Dir(os.Args[0]))
	err := inside(work, name, os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "E: run %s in the base: %v\n", name, err)
		os.Exit(1) //nolint:forbidigo // this is a program of its own, and has no main
	}
	os.Exit(0) //nolint:forbidigo // likewise
}

// inside does what the program name does with the root in the build's directory work. It doesn't
// return if that is a program of the base.
func inside(work, name string, args []string) error {
	if name == keepAccounts {
		return copyAccounts(filepath.Join(work, "root"), filepath.Join(work, "before"))
	}
	runtime.LockOSThread() // all that follows is the thread's own, and execve keeps that
	if err := enter(filepath.Join(work, "root")); err != nil {
		return err
	}
	program, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	if err := giveUp(); err != nil {
		return err
	}
	argv := []string{name}
	for _, arg := range withoutAdminDir(args) {
		if archive, ok := strings.CutPrefix(arg, filepath.Join(work, "archives")+"/"); ok {
			arg = archivesInside + archive
		}
		argv = append(argv, arg)
	}
	env := []string{"TMPDIR=/tmp"}
	for _, e := range os.Environ() {
		if key, _, _ := strings.Cut(e, "="); key != "TMPDIR" && key != "APT_CONFIG" && !strings.HasPrefix(key, "POWERNODE_") && !strings.HasSuffix(strings.ToLower(key), "_proxy") {
			env = append(env, e)
		}
	}
	return unix.Exec(program, argv, env)
}

// withoutAdminDir leaves out where apt 3 (Debian 13) tells dpkg to keep its database: beside apt's
// own state, which is outside of the root. Inside, dpkg's own default is the right place.
func withoutAdminDir(args []string) []string {
	const option = "--admindir"
	var kept []string
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == option:
			i++ // its value
		case !strings.HasPrefix(args[i], option+"="):
			kept = append(kept, args[i])
		}
	}
	return kept
}

// enter makes root the only file system there is, and cuts the network off. Other than after
// chroot(2), there is nothing outside to come back to.
func enter(root string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := unix.Chdir(root); err != nil {
		return fmt.Errorf("chdir: %w", err)
	}
	// The old root comes to lie on the new one, where it is unmounted (pivot_root(2)).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	return unix.Chdir("/")
}

// kept are the capabilities that unpacking files and making users takes. Among those that are
// given up are the ones to mount, to make devices, to trace and to open files by handle.
var kept = []int{
	unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL, unix.CAP_SETGID, unix.CAP_SETUID,
	unix.CAP_SETPCAP, unix.CAP_SETFCAP, unix.CAP_NET_BIND_SERVICE, unix.CAP_SYS_CHROOT, unix.CAP_AUDIT_WRITE,
}

// giveUp leaves the thread with the capabilities kept, and without a way to get more.
func giveUp() error {
	var mask uint64
	for _, c := range kept {
		mask |= 1 << c
	}
	for c := range uintptr(64) {
		if mask>>c&1 == 1 {
			continue
		}
		// EINVAL says that the kernel has no more capabilities.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); errors.Is(err, unix.EINVAL) {
			break
		} else if err != nil {
			return fmt.Errorf("give capability %d up: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("give ambient capabilities up: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return fmt.Errorf("read the capabilities: %w", err)
	}
	for i := range have {
		have[i].Permitted &= uint32(mask >> (32 * i))
		have[i].Effective, have[i].Inheritable = have[i].Permitted, 0
	}
	if err := unix.Capset(&header, &have[0]); err != nil {
		return fmt.Errorf("give capabilities up: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return nil
}

// copyAccounts copies the files of users and groups out of a root in which programs of the base
// have run: what they made of these files leads nowhere else.
func copyAccounts(root, to string) error {
	r, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer r.Close()
	for _, file := range accounts[:2] {
		// Without O_NONBLOCK, opening a FIFO would wait for ever.
		f, err := r.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		b, err := readRegular(f, file)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(file)), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func readRegular(f *os.File, name string) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	b, err := io.ReadAll(io.LimitReader(f, databaseMax+1))
	if err == nil && len(b) > databaseMax {
		err = errTooLarge(name, databaseMax)
	}
	return b, err
}
