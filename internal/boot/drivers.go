package boot

import (
	"context"
	"fmt"
	"strings"

	"github.com/powernode/powernode-agent/internal/device"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/kmod"
)

// needed are the kernel modules that the boot itself uses, whatever the hardware. Those that are
// built in are known to be.
var needed = []string{"overlay", "erofs", "loop", "ext4", "qemu_fw_cfg", "af_packet"}

// wished are those that the machine may do without: most disks are SCSI disks to the kernel, which asks for
// sd_mod only once it has found one; systemd wants autofs4 for its automounts when it starts, before the
// booted system has modules of its own.
var wished = []string{"sd_mod", "autofs4"}

// newcomers is where devices that appear are heard of, as a device.Listener is.
type newcomers interface {
	Modaliases(ctx context.Context) <-chan string
	Close() error
}

// modules loads what the boot and the hardware need. A kernel with everything built in has none to
// load, and another's initramfs has loaded its own.
func (b *boot) modules(ctx context.Context) (string, error) {
	dir, err := kmod.Dir("/")
	if err != nil {
		return "", err
	}
	return b.drive(ctx, &kmod.Loader{Dir: dir, Blocked: blocked(b.cmdline)}, "/sys", func() (newcomers, error) { return device.Listen() })
}

// drive loads the drivers of the devices below sysfs, and goes on with those of devices that appear until
// stopDrivers: the kernel looks for the disks of a controller in the background, after its driver was loaded.
// The loader is closed in the end.
func (b *boot) drive(ctx context.Context, loader *kmod.Loader, sysfs string, listen func() (newcomers, error)) (string, error) {
	b.stopDrivers() // those of an earlier attempt
	done, err := loader.Load(ctx, needed...)
	if err != nil {
		// A kernel may have built in what its index doesn't know. Where something is really missing,
		// the stage that needs it says so.
		b.remark(err.Error(), "")
	}
	if done.Nothing != "" {
		return done.Nothing, loader.Close()
	}
	if more, err := loader.Load(ctx, wished...); err == nil || len(more.Modules) > 0 {
		done.Modules = append(done.Modules, more.Modules...)
	}
	b.follow(loader, listen) // before the look, so that no device appears between the two
	found, err := loader.Coldplug(ctx, sysfs)
	if err != nil {
		b.remark(err.Error(), "")
	}
	said := fmt.Sprintf("%d loaded, %d of them for the hardware", len(done.Modules)+len(found.Modules), len(found.Modules))
	if n := len(found.Missing); n > 0 {
		said += fmt.Sprintf("; not in this initramfs: %s", strings.Join(found.Missing[:min(n, 8)], " "))
	}
	return said, ctx.Err()
}

// follow loads the drivers of devices that appear, in the background.
func (b *boot) follow(loader *kmod.Loader, listen func() (newcomers, error)) {
	devices, err := listen()
	if err != nil {
		b.remark(err.Error(), "a device that appears later gets no driver")
		b.following = func() { _ = loader.Close() }
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	appeared, ended := devices.Modaliases(ctx), make(chan struct{})
	go func() {
		defer close(ended)
		loader.Follow(ctx, appeared, func(_ kmod.Loaded, err error) {
			if err != nil {
				b.voice.say("          remark: %s", fault.OneLine(err.Error()))
			}
		})
	}()
	b.following = func() {
		cancel()
		<-ended
		_, _ = devices.Close(), loader.Close()
	}
}

// stopDrivers ends follow.
func (b *boot) stopDrivers() {
	if b.following != nil {
		b.following()
		b.following = nil
	}
}
