package boot

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/rootfs"
)

// rootDir returns where the union is mounted until it becomes "/". In an initramfs that can't be
// below /run, which is moved into the new root: no mount moves below itself. In namespaces of an
// ordinary system it is below their own /run, so that the system's "/" gets no directory.
func (b *boot) rootDir() string {
	if b.config.Namespace {
		return filepath.Join(RunDir, "root")
	}
	return "/newroot"
}

// mount makes the union of the proven root image, the objects and a fresh upper, checks that it
// can run, and makes it the current generation. A root that can't run gives way to a generation
// that ran before. An error leaves nothing mounted and no generation behind.
func (b *boot) mount(ctx context.Context) (string, error) {
	err := b.mountPlan(ctx)
	if _, unfit := errors.AsType[*rootfs.Unfit](err); unfit {
		err = b.insteadOf(ctx, err, b.prove, b.composePlan, b.mountPlan)
	}
	if err != nil {
		return "", err
	}
	if err := b.keep(); err != nil {
		b.root.Unmake()
		b.facts.Mount = mount.ID{}
		return "", err
	}
	return fmt.Sprintf("generation %d, integrity level %s", b.generation.Number, b.level), nil
}

func (b *boot) mountPlan(ctx context.Context) (err error) {
	b.root, err = rootfs.Make(ctx, rootfs.Spec{
		At: b.rootDir(), Scratch: RunDir,
		Store: b.store, RootDigest: b.composition.RootDigest, Level: b.level,
		Persist: b.config.Persist,
		Upper:   rootfs.Upper{Size: b.config.UpperSize},
		Init:    b.config.Init[0],
	})
	if err == nil {
		b.facts.Mount = b.root.ID()
	}
	return err
}
