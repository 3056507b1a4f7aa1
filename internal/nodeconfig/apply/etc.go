package apply

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/nodeconfig"
)

// Hostname has the machine called name, now and from its next boot on. name is one that
// nodeconfig.CheckHostname returned.
func (m *Machine) Hostname(name string) (Change, error) {
	change := Change{Path: "/etc/hostname"}
	etc, err := m.etc()
	if err != nil {
		return change, err
	}
	defer etc.Close()
	file, err := readFile(etc, "hostname", maxHostname)
	if err != nil {
		return change, err
	}
	was := nodeconfig.HostnameIn(file.data)
	if was != name {
		change.Added = []string{name}
		if was != "" {
			change.Removed = []string{was}
		}
		if err := m.write(etc, "hostname", []byte(name+"\n"), file); err != nil {
			return change, err
		}
		change.Changed = true
	}
	if m.options.Kernel == nil {
		return change, nil
	}
	runs, err := m.options.Kernel.Hostname()
	if err != nil || runs == name {
		return change, err
	}
	if !m.options.DryRun {
		if err := m.options.Kernel.SetHostname(name); err != nil {
			return change, err
		}
	}
	if !change.Changed {
		change.Changed, change.Added, change.Removed = true, []string{name}, []string{runs}
		change.Remarks = append(change.Remarks, "the file is right; the running system had another name")
	}
	return change, nil
}

// Hosts has the platform's entries in /etc/hosts, in a block of their own; with none, no block. Other lines
// stay.
func (m *Machine) Hosts(hosts []nodeconfig.Host) (Change, error) {
	change := Change{Path: "/etc/hosts"}
	etc, err := m.etc()
	if err != nil {
		return change, err
	}
	defer etc.Close()
	file, err := readFile(etc, "hosts", maxHostsEtc)
	if err != nil {
		return change, err
	}
	lines := make([]string, len(hosts))
	for i, h := range hosts {
		lines[i] = h.String()
	}
	merged, err := nodeconfig.Merge(file.data, lines)
	if err != nil {
		return change, refuse("edit "+change.Path, "%s: %w", change.Path, err)
	}
	if !merged.Changed {
		return change, nil
	}
	change.Added, change.Removed = merged.Added, merged.Removed
	err = m.write(etc, "hosts", merged.Data, file)
	change.Changed = err == nil
	return change, err
}

// write replaces a file of /etc. A new one can be read by everyone, as programs expect.
func (m *Machine) write(etc *durable.Dir, name string, data []byte, was content) error {
	if m.options.DryRun {
		return nil
	}
	perm := was.perm
	if !was.there {
		perm = 0o644
	}
	// Whoever else writes so in /etc does it under the same lock.
	if err := etc.Sweep(); err != nil {
		return err
	}
	err := etc.WriteFile(name, data, perm, name)
	if errors.Is(err, unix.EBUSY) {
		return refuse("set it where the file comes from", "/etc/%s is a mount of its own, as in a container: %w", name, err)
	}
	return err
}

// Kernel is the running kernel's host name, of this process's UTS namespace.
type Kernel struct{}

// Hostname implements Names.
func (Kernel) Hostname() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("read the kernel's host name: %w", err)
	}
	return unix.ByteSliceToString(u.Nodename[:]), nil
}

// SetHostname implements Names.
func (Kernel) SetHostname(name string) error {
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("tell the kernel the host name %s: %w", name, err)
	}
	return nil
}

// readBounded reads a file that may grow meanwhile.
func readBounded(f *os.File, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = &fs.PathError{Op: "read", Path: f.Name(), Err: durable.ErrTooLarge}
	}
	return data, err
}
