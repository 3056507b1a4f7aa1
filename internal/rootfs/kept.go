package rootfs

import (
	"bytes"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"

	"github.com/powernode/powernode-agent/internal/durable"
)

// keptFile is a file of /etc that outlives the boot whatever becomes of /etc itself, because the
// node is recognised by it.
type keptFile struct {
	name  string      // in its directory and in that of the kept files
	dir   string      // below /etc; "." is /etc itself
	perm  fs.FileMode // that it gets when it is put back, owned by root
	limit int64       // bytes
	check func([]byte) error
}

const (
	machineIDName = "machine-id"
	hostNameName  = "hostname"
)

// The fixed ones; host keys are found by their names, in sshDir.
var (
	machineIDFile = keptFile{name: machineIDName, dir: ".", perm: 0o444, limit: 64, check: checkMachineID}
	hostNameFile  = keptFile{name: hostNameName, dir: ".", perm: 0o644, limit: 512, check: checkHostName}
)

const (
	sshDir     = "ssh"
	hostKeyMax = 32 << 10
	// hostKeysMax bounds the number of host key files that are kept.
	hostKeysMax = 32
)

var hostKeyName = regexp.MustCompile(`^ssh_host_[a-z0-9][a-z0-9_-]{0,40}_key(\.pub)?$`)

// hostKeyFile returns the host key file of that name, as ssh-keygen -A makes it, and whether the
// name is one.
func hostKeyFile(name string) (keptFile, bool) {
	if !hostKeyName.MatchString(name) {
		return keptFile{}, false
	}
	f := keptFile{name: name, dir: sshDir, perm: 0o600, limit: hostKeyMax, check: checkPrivateKey}
	if strings.HasSuffix(name, ".pub") {
		f.perm, f.check = 0o644, checkPublicKey
	}
	return f, true
}

// keptFileOf returns the file that is kept under a name, and whether there is one.
func keptFileOf(name string) (keptFile, bool) {
	switch name {
	case machineIDName:
		return machineIDFile, true
	case hostNameName:
		return hostNameFile, true
	default:
		return hostKeyFile(name)
	}
}

// path is the file's below /etc.
func (f keptFile) path() string { return path.Join(f.dir, f.name) }

// read returns what the file holds, if that is the file itself, a regular one, and not too long.
func (f keptFile) read(etc *os.Root) ([]byte, error) {
	dir, err := openBelow(etc, f.dir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return durable.ReadFile(dir, f.name, f.limit)
}

// checkMachineID accepts 32 hexadecimal digits in lower case and a newline (machine-id(5)), not
// all zero. "uninitialized" and an empty file are no identity.
func checkMachineID(data []byte) error {
	id, ok := bytes.CutSuffix(data, []byte("\n"))
	if !ok || len(id) != 32 || len(bytes.Trim(id, "0123456789abcdef")) != 0 || len(bytes.Trim(id, "0")) == 0 {
		return errors.New("it is not 32 hexadecimal digits and a newline")
	}
	return nil
}

// checkHostName accepts text of hostname(5): printable ASCII lines, comments too, with a name in it.
func checkHostName(data []byte) error {
	name := false
	for line := range bytes.Lines(data) {
		line = bytes.TrimSpace(line)
		for _, c := range line {
			if c < ' ' || c > '~' {
				return errors.New("it holds more than printable ASCII")
			}
		}
		name = name || len(line) > 0 && line[0] != '#'
	}
	if !name {
		return errors.New("it holds no name")
	}
	return nil
}

// checkPrivateKey accepts one whole PEM block of a private key, so that a key that is just being
// written isn't taken for one.
func checkPrivateKey(data []byte) error {
	block, rest := pem.Decode(data)
	if block == nil || !strings.HasSuffix(block.Type, "PRIVATE KEY") || len(bytes.TrimSpace(rest)) != 0 {
		return errors.New("it is not one private key in PEM")
	}
	return nil
}

// checkPublicKey accepts one whole line of a type and a key in base64 (sshd(8)).
func checkPublicKey(data []byte) error {
	fields := bytes.Fields(data)
	if !bytes.HasSuffix(data, []byte("\n")) || bytes.Count(data, []byte("\n")) != 1 || len(fields) < 2 ||
		bytes.ContainsFunc(fields[1], func(c rune) bool {
			return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=", c)
		}) {
		return errors.New("it is not one public key on a line")
	}
	return nil
}
