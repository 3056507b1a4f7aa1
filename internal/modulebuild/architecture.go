package modulebuild

import (
	"debug/elf"
	"os"

	"github.com/powernode/powernode-agent/internal/ociimage"
)

// machines are the GOARCH of ELF machine types.
var machines = map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64", elf.EM_RISCV: "riscv64", elf.EM_386: "386", elf.EM_ARM: "arm", elf.EM_S390: "s390x", elf.EM_PPC64: "ppc64le"}

// architecture returns what the image's config says: what was asked for, or what the packages
// were built for, or what the programs in a directory are for. Programs for several architectures
// are data, as far as this can tell, or a mistake; the image is then for this machine.
func (b *builder) architecture(c *content) string {
	if b.Architecture != "" || b.FromDir == "" {
		return b.debianArchitecture()
	}
	found := ""
	for _, path := range c.files {
		switch arch := programArchitecture(path); {
		case arch == "" || arch == found:
		case found != "":
			return b.debianArchitecture()
		default:
			found = arch
		}
	}
	if found == "" {
		return ociimage.AnyArchitecture
	}
	return found
}

// programArchitecture returns the GOARCH of an ELF file, or "".
func programArchitecture(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return "" // it will be missed when its content is read
	}
	defer f.Close() //nolint:errcheck // only read from
	var head [20]byte
	if _, err := f.ReadAt(head[:], 0); err != nil || string(head[:4]) != elf.ELFMAG {
		return ""
	}
	machine := elf.Machine(uint16(head[18]) | uint16(head[19])<<8)
	if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
		machine = elf.Machine(uint16(head[19]) | uint16(head[18])<<8)
	}
	return machines[machine]
}
