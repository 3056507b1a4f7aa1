package switchroot

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/mount"
)

// devices are the memory devices of every Linux system (Documentation/admin-guide/devices.txt).
var devices = []struct {
	name         string
	major, minor uint32
}{
	{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
}

// devLinks are the names that programs know the process's own descriptors by.
var devLinks = [][2]string{
	{"/proc/self/fd", "fd"},
	{"/proc/self/fd/0", "stdin"},
	{"/proc/self/fd/1", "stdout"},
	{"/proc/self/fd/2", "stderr"},
	{"pts/ptmx", "ptmx"},
}

// fillDev fills the root's /dev, a fresh tmpfs, and mounts /dev/pts and /dev/shm in it.
func fillDev(root *os.File) error {
	dev, err := mount.OpenIn(root, "dev")
	if err != nil {
		return err
	}
	defer dev.Close()
	fd := int(dev.Fd())
	defer runtime.KeepAlive(dev)
	for _, d := range devices {
		if err := unix.Mknodat(fd, d.name, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor))); err != nil {
			return fmt.Errorf("make /dev/%s in the new root: %w", d.name, err)
		}
		if err := unix.Fchmodat(fd, d.name, 0o666, 0); err != nil { // the umask took some of it
			return fmt.Errorf("make /dev/%s in the new root: %w", d.name, err)
		}
	}
	for _, l := range devLinks {
		if err := unix.Symlinkat(l[0], fd, l[1]); err != nil {
			return fmt.Errorf("make /dev/%s in the new root: %w", l[1], err)
		}
	}
	for _, k := range []kernelMount{
		{"pts", "devpts", mount.NoSUID | mount.NoExec, []mount.Option{mount.String("mode", "620"), mount.String("ptmxmode", "666"), mount.String("gid", "5")}},
		{"shm", "tmpfs", mount.NoSUID | mount.NoDev, []mount.Option{mount.String("mode", "1777")}},
	} {
		target, err := mountPoint(dev, k.name)
		if err != nil {
			return err
		}
		err = k.mount(target)
		target.Close()
		if err != nil {
			return fmt.Errorf("mount /dev/%s in the new root: %w", k.name, err)
		}
	}
	return nil
}
