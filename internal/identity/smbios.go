package identity

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/powernode/powernode-agent/internal/bootconfig"
)

// SMBIOS is what a host writes into the firmware's table as strings of type 11, "OEM Strings" (DMTF
// DSP0134, 7.12), as systemd(1) takes credentials from there:
//
//	io.systemd.credential:powernode.NAME=VALUE
//	io.systemd.credential.binary:powernode.NAME=BASE64
//	powernode.NAME=VALUE
//
// with the usual names of the fields but ca_file. The whole table is read, which the kernel has without
// a driver; its copy by entries needs one.
type SMBIOS struct {
	// Sys is the mount point of sysfs; "" is /sys.
	Sys string
}

// smbiosMax bounds the table in bytes: an SMBIOS 3 table of a large server has some hundred KiB.
const smbiosMax = 1 << 20

// Name returns "smbios".
func (SMBIOS) Name() string { return "smbios" }

// Find reads the strings.
func (s SMBIOS) Find(context.Context) (Found, error) {
	path := filepath.Join(sysOr(s.Sys), "firmware/dmi/tables/DMI")
	table, err := readFile(path, smbiosMax)
	switch {
	case absent(err):
		return Found{}, NotFound("the firmware has no SMBIOS table (%s)", path)
	case err != nil:
		return Found{}, err
	}
	texts, err := oemStrings(table)
	if err != nil {
		return Found{}, fmt.Errorf("read the SMBIOS table: %w", err)
	}
	raw, err := parseOEMStrings(texts)
	if err != nil {
		return Found{}, err
	}
	if raw.IsZero() {
		return Found{}, NotFound("none of the firmware's OEM strings (%d) is ours", len(texts))
	}
	found, err := raw.Check(path, func(f Field) string { return bootconfig.Prefix + f.String() })
	return found, err
}

func sysOr(sys string) string {
	if sys == "" {
		return "/sys"
	}
	return sys
}

// The types of structures that count (DSP0134, 7.12 and 7.45).
const (
	smbiosOEMStrings = 11
	smbiosEnd        = 127
)

// oemStrings returns the strings of all structures of type 11. A structure is a formatted part, whose
// length its second byte tells, and strings that end in a zero byte each; an empty one ends the list,
// and a structure without strings has two zero bytes (DSP0134, 6.1.3).
func oemStrings(table []byte) ([]string, error) {
	var out []string
	for len(table) >= 4 {
		kind, length := table[0], int(table[1])
		if length < 4 || length > len(table) {
			return nil, fmt.Errorf("a structure of %d bytes where %d are left", length, len(table))
		}
		rest := table[length:]
		end := bytes.Index(rest, []byte{0, 0})
		if end < 0 {
			return nil, errors.New("a structure's strings have no end")
		}
		if kind == smbiosOEMStrings && end > 0 {
			for _, text := range bytes.Split(rest[:end], []byte{0}) {
				out = append(out, string(text))
			}
		}
		if kind == smbiosEnd {
			break
		}
		table = rest[end+2:]
	}
	return out, nil
}

// parseOEMStrings picks ours. A field that is given twice with different values is an error: which
// would count isn't for the machine to guess. Errors don't show the strings.
func parseOEMStrings(texts []string) (Raw, error) {
	const credential, binary = "io.systemd.credential:", "io.systemd.credential.binary:"
	var raw Raw
	for _, text := range texts {
		text, coded := strings.CutPrefix(text, binary)
		if !coded {
			text = strings.TrimPrefix(text, credential)
		}
		name, value, ok := strings.Cut(text, "=")
		name, ours := strings.CutPrefix(name, bootconfig.Prefix)
		i := slices.IndexFunc(hostFields(), func(f Field) bool { return f.String() == name })
		if !ok || !ours || i < 0 {
			continue
		}
		if coded {
			plain, err := base64.StdEncoding.DecodeString(value)
			if err != nil {
				return Raw{}, fmt.Errorf("the value of %s%s isn't in base64", bootconfig.Prefix, name)
			}
			value = string(plain)
		}
		value = strings.Trim(value, "\x00 \t\r\n")
		at := raw.At(hostFields()[i])
		switch {
		case !utf8.ValidString(value) || strings.ContainsRune(value, 0):
			return Raw{}, fmt.Errorf("the value of %s%s isn't a text", bootconfig.Prefix, name)
		case *at != "" && *at != value:
			return Raw{}, fmt.Errorf("%s%s is there twice, with different values", bootconfig.Prefix, name)
		}
		*at = value
	}
	return raw, nil
}

// DMI is the UUID that the firmware gives the machine, as a hint: whoever makes machines may know it.
// It is no identity, since anybody can know and any hypervisor can claim it.
type DMI struct {
	// Sys is the mount point of sysfs; "" is /sys.
	Sys string
}

// Name returns "dmi".
func (DMI) Name() string { return "dmi" }

// sameForMany are UUIDs that boards have which weren't given one.
var sameForMany = []string{
	"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
	"03000200-0400-0500-0006-000700080009", "12345678-1234-5678-90ab-cddeefaabbcc",
}

// Find reads the UUID.
func (s DMI) Find(context.Context) (Found, error) {
	path := filepath.Join(sysOr(s.Sys), "class/dmi/id/product_uuid")
	text, err := readFile(path, 256)
	switch {
	case absent(err):
		return Found{}, NotFound("the firmware says no UUID (%s)", path)
	case err != nil:
		return Found{}, err
	}
	id := strings.ToLower(strings.TrimSpace(string(text)))
	if slices.Contains(sameForMany, id) {
		return Found{}, NotFound("the firmware's UUID is one that many machines have: %s", id)
	}
	if id, err = ParseInstanceID(id); err != nil {
		return Found{}, NotFound("the firmware's UUID: %v", err)
	}
	return Found{DMIUUID: id, Where: path}, nil
}
