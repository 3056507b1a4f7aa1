package switchroot

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
)

// program returns the headers of an ELF program that names a loader ("" for none); change may
// spoil them.
func program(t testing.TB, machine elf.Machine, loader string, change func(*elf.Header64, *elf.Prog64)) string {
	t.Helper()
	h := elf.Header64{Type: uint16(elf.ET_DYN), Machine: uint16(machine), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB)
	p := elf.Prog64{Type: uint32(elf.PT_LOAD)}
	if loader != "" {
		p = elf.Prog64{Type: uint32(elf.PT_INTERP), Off: 64 + 56, Filesz: uint64(len(loader) + 1)}
	}
	if change != nil {
		change(&h, &p)
	}
	var b bytes.Buffer
	must(t, binary.Write(&b, binary.LittleEndian, &h))
	must(t, binary.Write(&b, binary.LittleEndian, &p))
	return b.String() + loader + "\x00"
}

func TestCheckProgram(t *testing.T) {
	static := program(t, elf.EM_X86_64, "", nil)
	tests := map[string]struct {
		files map[string]string // "@x" is a symlink to x
		text  string            // of the refusal; "" if it can be run
	}{
		"static":                  {map[string]string{"sbin/init": static}, ""},
		"by a link":               {map[string]string{"sbin/init": "@/lib/systemd", "lib/systemd": static}, ""},
		"by a relative link":      {map[string]string{"sbin/init": "@../lib/systemd", "lib/systemd": static}, ""},
		"a link never leaves":     {map[string]string{"sbin/init": "@/../../../../lib/systemd", "lib/systemd": static}, ""},
		"with its loader":         {map[string]string{"sbin/init": program(t, elf.EM_X86_64, "/lib64/ld.so", nil), "lib64/ld.so": static}, ""},
		"a script":                {map[string]string{"sbin/init": "#! /bin/sh -e\nexit", "bin/sh": static}, ""},
		"missing":                 {map[string]string{"bin/sh": static}, "has no /sbin/init"},
		"a link to nowhere":       {map[string]string{"sbin/init": "@/lib/systemd"}, "has no /sbin/init"},
		"a link to the machine's": {map[string]string{"sbin/init": "@/etc/passwd"}, "has no /sbin/init"},
		"a loop":                  {map[string]string{"sbin/init": "@init"}, "has no /sbin/init"},
		"a directory":             {map[string]string{"sbin/init/x": ""}, "not an executable file"},
		"without its loader":      {map[string]string{"sbin/init": program(t, elf.EM_X86_64, "/lib64/ld.so", nil)}, "needs /lib64/ld.so: the new root has no"},
		"loader for another":      {map[string]string{"sbin/init": program(t, elf.EM_X86_64, "/ld.so", nil), "ld.so": program(t, elf.EM_AARCH64, "", nil)}, "built for EM_AARCH64"},
		"for another machine":     {map[string]string{"sbin/init": program(t, elf.EM_AARCH64, "", nil)}, "built for EM_AARCH64 (ELFCLASS64), this machine is amd64"},
		"32 bits": {map[string]string{"sbin/init": program(t, elf.EM_386, "", func(h *elf.Header64, _ *elf.Prog64) {
			h.Ident[elf.EI_CLASS] = byte(elf.ELFCLASS32)
		})}, "built for EM_386"},
		"an object file": {map[string]string{"sbin/init": program(t, elf.EM_X86_64, "", func(h *elf.Header64, _ *elf.Prog64) {
			h.Type = uint16(elf.ET_REL)
		})}, "of ELF type ET_REL"},
		"cut short":         {map[string]string{"sbin/init": static[:40]}, "cut short"},
		"headers cut short": {map[string]string{"sbin/init": static[:80]}, "cut short"},
		"headers elsewhere": {map[string]string{"sbin/init": program(t, elf.EM_X86_64, "", func(h *elf.Header64, _ *elf.Prog64) {
			h.Phoff = 1 << 63
		})}, "damaged"},
		"a loader's name of 5000 bytes": {map[string]string{"sbin/init": program(t, elf.EM_X86_64, "/ld.so", func(_ *elf.Header64, p *elf.Prog64) {
			p.Filesz = 5000
		})}, "name of its loader is damaged"},
		"text":                           {map[string]string{"sbin/init": "exec sh"}, "neither an ELF program nor a script"},
		"empty":                          {map[string]string{"sbin/init": ""}, "neither an ELF program nor a script"},
		"a script without a program":     {map[string]string{"sbin/init": "#!\n"}, "names no interpreter"},
		"a script with a long line":      {map[string]string{"sbin/init": "#!/" + strings.Repeat("x", 300)}, "too long"},
		"a script of a relative program": {map[string]string{"sbin/init": "#!sh\n"}, "not an absolute path"},
		"a script of itself":             {map[string]string{"sbin/init": "#!/sbin/init\n"}, "interpreters call each other"},
	}
	for name, test := range tests {
		dir := t.TempDir()
		for path, content := range test.files {
			path = filepath.Join(dir, path)
			must(t, os.MkdirAll(filepath.Dir(path), 0o755))
			if target, ok := strings.CutPrefix(content, "@"); ok {
				must(t, os.Symlink(target, path))
			} else {
				must(t, os.WriteFile(path, []byte(content), 0o755))
			}
		}
		err := checkProgram(open(t, dir), "/sbin/init", "amd64", 0)
		switch {
		case test.text == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.text != "" && (err == nil || !strings.Contains(err.Error(), test.text)):
			t.Errorf("%s: %v, want %q", name, err, test.text)
		case err != nil && (fault.KindOf(err) != fault.Refuse || fault.HintOf(err) == ""):
			t.Errorf("%s: %v is no refusal with a hint", name, err)
		}
	}
}

func TestCheckProgramOfThisMachine(t *testing.T) {
	root := open(t, "/")
	if err := CheckProgram(root, "/bin/sh"); err != nil {
		t.Error(err)
	}
	for _, path := range []string{"/dev/null", "/etc/passwd", "/proc/self/exe"} {
		if err := CheckProgram(root, path); err == nil {
			t.Errorf("%s was accepted", path)
		}
	}
}

func FuzzReadELF(f *testing.F) {
	f.Add([]byte(program(f, elf.EM_X86_64, "/lib64/ld-linux-x86-64.so.2", nil)))
	f.Add([]byte(program(f, elf.EM_AARCH64, "", nil)))
	f.Fuzz(func(t *testing.T, b []byte) {
		loader, err := readELF(bytes.NewReader(b), "amd64")
		if err == nil && (strings.Contains(loader, "\x00") || len(loader) > 4095) {
			t.Errorf("loader %q", loader)
		}
	})
}
