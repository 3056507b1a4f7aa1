package switchroot

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const elfMagic = elf.ELFMAG

// machines are the ELF machines of the architectures that the agent is built for; all are 64-bit
// and little-endian.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "riscv64": elf.EM_RISCV}

// readELF checks that r holds a program for arch and returns the loader that it asks for (the
// PT_INTERP segment), "" for a static one. It reads the headers alone, bounded, and believes none
// of their offsets: package debug/elf isn't made for hostile files.
func readELF(r io.ReaderAt, arch string) (loader string, err error) {
	var h elf.Header64
	if err := binary.Read(io.NewSectionReader(r, 0, 64), binary.LittleEndian, &h); err != nil {
		return "", errors.New("its ELF header is cut short")
	}
	want, known := machines[arch]
	class, data := elf.Class(h.Ident[elf.EI_CLASS]), elf.Data(h.Ident[elf.EI_DATA])
	machine := elf.Machine(h.Machine)
	if !known || class != elf.ELFCLASS64 || data != elf.ELFDATA2LSB || machine != want {
		return "", fmt.Errorf("it is built for %s (%s), this machine is %s", machine, class, arch)
	}
	if t := elf.Type(h.Type); t != elf.ET_EXEC && t != elf.ET_DYN {
		return "", fmt.Errorf("it is no program but of ELF type %s", t)
	}
	// The kernel takes 56-byte program headers and at most 64 KiB of them (load_elf_phdrs).
	const size = 56
	if h.Phentsize != size || h.Phnum == 0 || int(h.Phnum)*size > 64<<10 || h.Phoff > 1<<62 {
		return "", errors.New("its ELF program headers are damaged")
	}
	headers := make([]elf.Prog64, h.Phnum)
	if err := binary.Read(io.NewSectionReader(r, int64(h.Phoff), int64(len(headers)*size)), binary.LittleEndian, headers); err != nil {
		return "", errors.New("its ELF program headers are cut short")
	}
	for _, p := range headers {
		if elf.ProgType(p.Type) == elf.PT_INTERP {
			return readLoader(r, p)
		}
	}
	return "", nil
}

// readLoader reads the path in a PT_INTERP segment: 2 to 4096 bytes, the last one zero.
func readLoader(r io.ReaderAt, p elf.Prog64) (string, error) {
	if p.Filesz < 2 || p.Filesz > 4096 || p.Off > 1<<62 {
		return "", errors.New("the name of its loader is damaged")
	}
	name := make([]byte, p.Filesz)
	if _, err := io.ReadFull(io.NewSectionReader(r, int64(p.Off), int64(p.Filesz)), name); err != nil {
		return "", errors.New("the name of its loader is cut short")
	}
	if bytes.IndexByte(name, 0) != len(name)-1 {
		return "", errors.New("the name of its loader is damaged")
	}
	return string(name[:len(name)-1]), nil
}
