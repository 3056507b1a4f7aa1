package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"

	"github.com/powernode/powernode-agent/internal/device"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/mount"
)

// answer is what one volume said.
type answer struct {
	device device.Listed
	found  identity.Found
	err    error
	// unread says that the volume itself couldn't be read.
	unread bool
}

// says reports whether both volumes say the same, as the boot partitions of mirrored disks do.
func (a answer) says(b answer) bool {
	if a.err != nil || b.err != nil {
		return false
	}
	a.found.Where, b.found.Where = "", ""
	return reflect.DeepEqual(a.found, b.found)
}

// find asks every volume that is one of the kind. candidate tells by the device; nil is by the volume's
// own label cidata. ask reads one.
func find(ctx context.Context, o device.Options, kind string, candidate func(device.Listed) bool, ask func(files, device.Listed) (identity.Found, error)) (identity.Found, error) {
	devices, err := device.All(o)
	if err != nil {
		return identity.Found{}, err
	}
	inUse := mountedDevices()
	var answers []answer
	why := "there is no " + kind
	for _, d := range devices {
		if ctx.Err() != nil {
			return identity.Found{}, context.Cause(ctx)
		}
		at := inUse[d.Path]
		if at != "" && d.Type != "" { // to mount it once more would fail
			if candidate != nil && candidate(d) {
				why = isMounted(d.Path, at)
			}
			continue
		}
		v, ok, err := open(d, candidate)
		if !ok && err == nil {
			continue
		}
		if at != "" && err == nil && candidate != nil {
			why = isMounted(d.Path, at)
			_ = v.Close()
			continue
		}
		a := answer{device: d, err: err, unread: err != nil}
		if err == nil {
			a.found, a.err = ask(v, d)
			_ = v.Close()
		}
		if errors.Is(a.err, identity.ErrNotFound) {
			why = a.err.Error()
			continue
		}
		answers = append(answers, a)
	}
	return choose(answers, why)
}

func isMounted(device, at string) string {
	return fmt.Sprintf("%s is mounted at %s and left alone: of mounted ones only /boot/identity.cfg is read, or what --identity-file names", device, at)
}

// choose takes the one answer that counts.
func choose(answers []answer, why string) (identity.Found, error) {
	if read := slices.DeleteFunc(slices.Clone(answers), func(a answer) bool { return a.unread }); len(read) > 0 {
		answers = read
	}
	if fixed := slices.DeleteFunc(slices.Clone(answers), func(a answer) bool { return a.device.Removable }); len(fixed) > 0 {
		answers = fixed
	}
	answers = slices.CompactFunc(answers, answer.says)
	switch len(answers) {
	case 0:
		return identity.Found{}, identity.NotFound("%s", why)
	case 1:
		if err := answers[0].err; err != nil {
			return identity.Found{}, fault.New(fault.Refuse, fault.Input, fault.HintOf(err), "%s: %w", answers[0].device.Path, err)
		}
		return answers[0].found, nil
	}
	var names []string
	for _, a := range answers {
		names = append(names, a.device.Path)
	}
	return identity.Found{}, fault.New(fault.Refuse, fault.Input, "leave one of them", "there are several of them: %s", strings.Join(names, ", "))
}

// open opens a volume if it is a candidate. A candidate that can't be read is an error, anything else
// is passed over.
func open(d device.Listed, candidate func(device.Listed) bool) (files, bool, error) {
	known := candidate != nil && candidate(d)
	if d.Type != "" { // the kernel's
		if !known {
			return nil, false, nil
		}
		m, err := mountVolume(d.Path, d.Type)
		return m, err == nil, err
	}
	f, err := os.OpenFile(d.Path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, false, nil //nolint:nilerr // a drive without a medium isn't a volume
	}
	m, err := openMedium(f, f)
	switch {
	case err == nil && (known || candidate == nil && strings.EqualFold(m.label, "cidata") || candidate != nil && isBootLabel(m.label)):
		return m, true, nil
	case err != nil && known && !errors.Is(err, errUnknown):
		_ = f.Close()
		return nil, false, fmt.Errorf("read it: %w", err)
	}
	_ = f.Close()
	return nil, false, nil
}

// mountedDevices returns the mount point of each device that is mounted. Where the kernel's table can't
// be read, there are none: what follows only reads.
func mountedDevices() map[string]string {
	at := map[string]string{}
	table, err := mount.ReadTable()
	if err != nil {
		return at
	}
	for _, e := range table {
		if strings.HasPrefix(e.Source, "/dev/") && at[e.Source] == "" {
			at[e.Source] = e.Point
		}
	}
	return at
}
