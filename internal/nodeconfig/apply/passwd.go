package apply

import (
	"bytes"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/powernode/powernode-agent/internal/fault"
)

// account is what passwd(5) says of a user.
type account struct {
	name     string
	uid, gid int
	home     string
}

// account looks a user up in the machine's own /etc/passwd: what a name service far away says would make a
// change of the node depend on it.
func (m *Machine) account(name string) (account, error) {
	etc, err := m.etc()
	if err != nil {
		return account{}, err
	}
	defer etc.Close()
	file, err := readFile(etc, "passwd", maxPasswd)
	if err != nil {
		return account{}, err
	}
	a, ok := findAccount(file.data, name)
	if !ok {
		return account{}, fault.New(fault.Refuse, fault.Input, "bring the user with a module, or take them out of the node's configuration",
			"there is no user %s in /etc/passwd", name)
	}
	return a, nil
}

// findAccount returns the first entry of that name, as getpwnam(3) does. Lines that aren't entries don't
// count.
func findAccount(passwd []byte, name string) (account, bool) {
	for line := range bytes.Lines(passwd) {
		fields := strings.Split(strings.TrimSuffix(string(line), "\n"), ":")
		if len(fields) != 7 || fields[0] != name || name == "" {
			continue
		}
		uid, uidErr := strconv.ParseUint(fields[2], 10, 32)
		gid, gidErr := strconv.ParseUint(fields[3], 10, 32)
		home := fields[5]
		// The highest IDs mean "none" to system calls.
		if uidErr != nil || gidErr != nil || uid >= 1<<32-1 || gid >= 1<<32-1 || !utf8.ValidString(home) || strings.ContainsRune(home, 0) {
			return account{}, false
		}
		if home != "" {
			home = path.Clean(home)
		}
		return account{name: name, uid: int(uid), gid: int(gid), home: home}, true
	}
	return account{}, false
}
