package cloud

import (
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Machine is what firmware and hypervisor say of the machine; what they don't say is "". Reading
// it contacts nobody.
type Machine struct {
	SysVendor, ProductName, ProductVersion, BIOSVendor, ChassisAssetTag, BoardAssetTag string
	// HypervisorUUID is a Xen guest's, of the older machines of AWS.
	HypervisorUUID string
}

// ReadMachine reads the DMI table below sys, the mount point of sysfs; "" is /sys.
func ReadMachine(sys string) Machine {
	if sys == "" {
		sys = "/sys"
	}
	dmi := func(name string) string { return readLine(filepath.Join(sys, "class/dmi/id", name)) }
	return Machine{
		SysVendor: dmi("sys_vendor"), ProductName: dmi("product_name"), ProductVersion: dmi("product_version"),
		BIOSVendor: dmi("bios_vendor"), ChassisAssetTag: dmi("chassis_asset_tag"), BoardAssetTag: dmi("board_asset_tag"),
		HypervisorUUID: readLine(filepath.Join(sys, "hypervisor/uuid")),
	}
}

// readLine returns a short file's text without the white space around it. A machine without the
// file is one that doesn't say it.
func readLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
