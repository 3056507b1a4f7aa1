package initramfs

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// DefaultModules are the kernel modules that an initramfs gets where the kernel has them as
// modules: what a virtual or physical machine may need to reach its disk and the network, and
// what the composed root is mounted with. A kernel for clouds has few of those for hardware.
var DefaultModules = []string{
	// The root.
	"erofs", "overlay", "loop", "crc32c_generic", "crc32c_intel",
	// File systems of the persist disk.
	"ext4", "xfs", "btrfs", "vfat", "nls_ascii", "nls_cp437", "nls_iso8859_1", "nls_utf8",
	// Device-mapper: encrypted and verified disks.
	"dm_mod", "dm_crypt", "dm_verity", "dm_integrity", "xts", "ecb", "aesni_intel", "sha256_ssse3",
	// Where the identity comes from, and the TPM.
	"qemu_fw_cfg", "dmi_sysfs", "tpm_tis", "tpm_crb",
	// Virtual machines: virtio, Xen, Hyper-V, VMware.
	"virtio_pci", "virtio_mmio", "virtio_blk", "virtio_scsi", "virtio_net", "virtio_console", "virtio_rng",
	"xen_blkfront", "xen_netfront", "xen_scsifront",
	"hv_vmbus", "hv_storvsc", "hv_netvsc", "hv_utils", "pci_hyperv", "hyperv_keyboard", "mana",
	"vmw_pvscsi", "vmxnet3",
	// Network cards of clouds, and what they fail over to.
	"failover", "net_failover", "ena", "gve", "idpf", "ionic", "ixgbevf", "iavf", "mlx4_en", "mlx5_core",
	// Disks.
	"nvme", "ahci", "ata_piix", "ata_generic", "sd_mod", "sr_mod", "isofs", "mpi3mr", "megaraid_sas", "mpt3sas",
	"usb_storage", "uas", "xhci_pci", "ehci_pci", "mmc_block", "sdhci_pci",
	// Network cards of ordinary machines.
	"e1000", "e1000e", "igb", "igc", "ixgbe", "i40e", "ice", "r8169", "tg3", "bnxt_en", "8139cp",
	// Watchdogs that a hung boot is ended by.
	"iTCO_wdt", "i6300esb",
}

// moduleName returns the name of the module in a file: dashes and underscores are the same to the
// kernel, and the file may be compressed.
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// index is what depmod writes about a kernel's modules.
type index struct {
	// files are modules.dep's: each module's file, and the files of those that it needs, all of
	// them, the last needed first to be loaded.
	files map[string][]string
	// byName finds a module's file, builtin holds the names of those in the kernel itself.
	byName  map[string]string
	builtin map[string]bool
}

// readIndex reads modules.dep and modules.builtin (modules.dep(5)).
func readIndex(dir string) (*index, error) {
	x := &index{files: make(map[string][]string), byName: make(map[string]string), builtin: make(map[string]bool)}
	err := eachLine(filepath.Join(dir, "modules.dep"), func(line string) error {
		file, needs, ok := strings.Cut(line, ":")
		if !ok {
			return fmt.Errorf("modules.dep of %s: a line without a colon: %.100q", dir, line)
		}
		x.files[file] = strings.Fields(needs)
		x.byName[moduleName(file)] = file
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w (depmod makes it)", err)
	}
	return x, eachLine(filepath.Join(dir, "modules.builtin"), func(line string) error {
		x.builtin[moduleName(line)] = true
		return nil
	})
}

// choose returns the files of the named modules, and the names that the kernel has nothing for.
func (x *index) choose(names []string) (files, missing []string) {
	for _, name := range names {
		name = moduleName(name)
		if file, ok := x.byName[name]; ok {
			files = append(files, file)
		} else if !x.builtin[name] {
			missing = append(missing, name)
		}
	}
	return files, missing
}

// closure returns these modules and all that they need, sorted.
func (x *index) closure(files []string) []string {
	all := slices.Clone(files)
	for _, file := range files {
		all = append(all, x.files[file]...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// depText returns modules.dep of these modules only.
func (x *index) depText(files []string) string {
	var b strings.Builder
	for _, file := range files {
		b.WriteString(file + ":")
		for _, need := range x.files[file] {
			b.WriteString(" " + need)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// subset returns the lines of an index that are about these modules: `alias PATTERN MODULE` and
// `softdep MODULE ...`. Without the file there are none.
func subset(path string, names []string) (string, error) {
	wanted := make(map[string]bool, len(names))
	for _, name := range names {
		wanted[name] = true
	}
	var b strings.Builder
	err := eachLine(path, func(line string) error {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			return nil
		}
		name := fields[1]
		if fields[0] == "alias" {
			name = fields[len(fields)-1]
		}
		if wanted[moduleName(name)] {
			b.WriteString(line + "\n")
		}
		return nil
	})
	if os.IsNotExist(err) {
		err = nil
	}
	return b.String(), err
}

func eachLine(path string, do func(line string) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if line := lines.Text(); line != "" && !strings.HasPrefix(line, "#") {
			if err := do(line); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}
