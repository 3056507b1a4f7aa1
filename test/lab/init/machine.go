package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/powernode/powernode-agent/internal/kmod"
)

// enterDisk is this program as /init of an initramfs without an agent: it makes the first disk the
// root. The kernel parameter test.init names the program to start there; without, it goes on itself.
func enterDisk() error {
	for _, m := range []struct{ fsType, at string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := syscall.Mount(m.fsType, m.at, m.fsType, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	dir, err := kmod.Dir("/")
	if err != nil {
		return err
	}
	loader := &kmod.Loader{Dir: dir}
	if _, err := loader.Coldplug(context.Background(), "/sys"); err != nil {
		fmt.Println("test init:", err)
	}
	if _, err := loader.Load(context.Background(), "erofs", "overlay", "loop", "dm_mod", "dm_crypt", "dm_verity", "xts", "qemu_fw_cfg"); err != nil {
		fmt.Println("test init:", err)
	}
	const root = "/sysroot"
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	for range 600 {
		if err = syscall.Mount("/dev/vda", root, "ext4", 0, ""); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("mount /dev/vda: %w", err)
	}
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(dir, root+dir, "", syscall.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := syscall.Mount(".", "/", "", syscall.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := syscall.Chroot("."); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	if init := parameter("test.init"); init != "" {
		return syscall.Exec(init, []string{init}, os.Environ())
	}
	return nil
}

// parameter returns the value of a kernel parameter.
func parameter(name string) string {
	text, _ := os.ReadFile("/proc/cmdline") // without, there are none
	for word := range strings.FieldsSeq(string(text)) {
		if value, ok := strings.CutPrefix(word, name+"="); ok {
			return value
		}
	}
	return ""
}
