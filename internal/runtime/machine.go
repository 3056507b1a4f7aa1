package runtime

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// vmGenerationOffset is where QEMU puts the GUID in the blob of its VM generation ID device (docs/specs/vmgenid in
// QEMU: VMGENID_GUID_OFFSET).
const vmGenerationOffset = 40

// ReadMachine reads below sys, where sysfs is, what tells this machine from a copy of it. What can't be read
// stays empty: few machines have it all, and nothing depends on it here.
func ReadMachine(sys string) nodeapi.Machine {
	var m nodeapi.Machine
	if text, err := readBounded(filepath.Join(sys, "class/dmi/id/product_uuid")); err == nil {
		if id := strings.ToLower(strings.TrimSpace(text)); isUUID(id) {
			m.DMIUUID = id
		}
	}
	m.VMGenerationID = vmGeneration(filepath.Join(sys, "firmware/qemu_fw_cfg/by_name/etc/vmgenid_guid/raw"))
	return m
}

// vmGeneration returns the generation ID as a UUID; "" where there is none.
func vmGeneration(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	// An attribute of sysfs knows no seeking in all kernels; the blob is small.
	blob := make([]byte, vmGenerationOffset+16)
	if _, err := io.ReadFull(f, blob); err != nil {
		return ""
	}
	g := blob[vmGenerationOffset:]
	if strings.Trim(string(g), "\x00") == "" {
		return ""
	}
	// A GUID in memory has its first three fields in little-endian order (UEFI specification, appendix A).
	return fmt.Sprintf("%02x%02x%02x%02x-%02x%02x-%02x%02x-%x-%x", g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6], g[8:10], g[10:])
}

func isUUID(s string) bool {
	if len(s) != 36 || strings.Trim(s, "0123456789abcdef-") != "" {
		return false
	}
	for i, c := range []byte(s) {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (c == '-') {
			return false
		}
	}
	return true
}
