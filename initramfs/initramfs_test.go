package initramfs

import (
	"bytes"
	"encoding/hex"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

// unpacked is a file of an archive as a reader of the format sees it.
type unpacked struct {
	mode, major, minor, mtime, uid uint64
	text                           string
}

// unpack reads a compressed newc archive as the kernel does.
func unpack(t *testing.T, data []byte) (map[string]unpacked, []string) {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	raw, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	files, order := make(map[string]unpacked), []string{}
	for rest := raw; ; {
		if string(rest[:6]) != "070701" {
			t.Fatalf("at %d: no header: %q", len(raw)-len(rest), rest[:6])
		}
		field := func(i int) (n uint64) {
			b, err := hex.DecodeString(string(rest[6+8*i : 14+8*i]))
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range b {
				n = n<<8 | uint64(x)
			}
			return n
		}
		size, nameSize := field(6), field(11)
		name := string(rest[110 : 110+nameSize-1])
		begin := (110 + nameSize + 3) &^ 3
		if name == "TRAILER!!!" {
			return files, order
		}
		files[name] = unpacked{field(1), field(9), field(10), field(5), field(2), string(rest[begin : begin+size])}
		order = append(order, name)
		rest = rest[(begin+size+3)&^3:]
	}
}

// host makes the inputs of an initramfs: files by path below a new directory.
func host(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var kernel = map[string]string{
	"agent":            "the agent's program",
	"trust/trust.yaml": "schema_version: 1\n",
	"trust/keys/a.pub": "a key",
	"ca.pem":           "the certificates\nof the authorities\n",
	"k/6.12/modules.dep": "kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko.xz kernel/net/core/failover.ko.xz\n" +
		"kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz\nkernel/net/core/failover.ko.xz:\n" +
		"kernel/fs/overlayfs/overlay.ko.xz:\nkernel/sound/beep-beep.ko:\n",
	"k/6.12/modules.builtin":                     "kernel/fs/ext4/ext4.ko\n",
	"k/6.12/modules.alias":                       "# Aliases\nalias virtio:d00000001v* virtio_net\nalias snd-* beep_beep\nalias fs-overlay overlay\n",
	"k/6.12/modules.softdep":                     "softdep beep_beep pre: virtio_net\n",
	"k/6.12/kernel/drivers/net/virtio_net.ko.xz": "net", "k/6.12/kernel/drivers/net/net_failover.ko.xz": "over",
	"k/6.12/kernel/net/core/failover.ko.xz": "fail", "k/6.12/kernel/fs/overlayfs/overlay.ko.xz": "overlay", "k/6.12/kernel/sound/beep-beep.ko": "beep",
}

func TestWriteTakesWhatIsNeededAndNothingElse(t *testing.T) {
	dir := host(t, kernel)
	var b bytes.Buffer
	report, err := Write(&b, Spec{Init: dir + "/agent", KernelDir: dir + "/k/6.12", Trust: dir + "/trust", CA: dir + "/ca.pem"})
	if err != nil {
		t.Fatal(err)
	}
	files, order := unpack(t, b.Bytes())
	if want := slices.Sorted(maps.Keys(files)); !slices.Equal(order, want) {
		t.Errorf("order %v", order)
	}
	var regular []string
	for _, name := range order {
		f := files[name]
		if f.mode&0o170000 == modeRegular {
			regular = append(regular, name)
		}
		if f.mtime != 0 || f.uid != 0 {
			t.Errorf("%s: time %d, owner %d", name, f.mtime, f.uid)
		}
	}
	m := "lib/modules/6.12/"
	want := []string{
		"etc/powernode/keys/a.pub", "etc/powernode/trust.yaml", "etc/ssl/certs/ca-certificates.crt", "init",
		m + "kernel/drivers/net/net_failover.ko.xz", m + "kernel/drivers/net/virtio_net.ko.xz", m + "kernel/fs/overlayfs/overlay.ko.xz",
		m + "kernel/net/core/failover.ko.xz", m + "modules.alias", m + "modules.builtin", m + "modules.dep", m + "modules.softdep",
	}
	if diff := cmp.Diff(want, regular); diff != "" {
		t.Error(diff)
	}
	if f := files["init"]; f.mode != modeRegular|0o755 || f.text != kernel["agent"] {
		t.Errorf("init: %o %q", f.mode, f.text)
	}
	// Where Go programs look for them, byte by byte, for everybody to read.
	if f := files["etc/ssl/certs/ca-certificates.crt"]; f.mode != modeRegular|0o644 || f.text != kernel["ca.pem"] {
		t.Errorf("CA certificates: %o %q", f.mode, f.text)
	}
	if f := files["dev/console"]; f.mode != modeCharDevice|0o600 || f.major != 5 || f.minor != 1 {
		t.Errorf("console: %+v", f)
	}
	if f := files["dev/null"]; f.mode != modeCharDevice|0o666 || f.major != 1 || f.minor != 3 {
		t.Errorf("null: %+v", f)
	}
	if got := files[m+"modules.alias"].text; got != "alias virtio:d00000001v* virtio_net\nalias fs-overlay overlay\n" {
		t.Errorf("modules.alias: %q", got)
	}
	if got := files[m+"modules.dep"].text; strings.Contains(got, "beep") || strings.Count(got, "\n") != 4 {
		t.Errorf("modules.dep: %q", got)
	}
	if diff := cmp.Diff([]string{"failover", "net_failover", "overlay", "virtio_net"}, report.Modules); diff != "" {
		t.Error(diff)
	}
	if slices.Contains(report.Missing, "ext4") || !slices.Contains(report.Missing, "erofs") {
		t.Errorf("missing: %v", report.Missing)
	}
}

func TestWriteIsReproducible(t *testing.T) {
	var first []byte
	for range 3 {
		dir := host(t, kernel)
		var b bytes.Buffer
		if _, err := Write(&b, Spec{Init: dir + "/agent", KernelDir: dir + "/k/6.12", Trust: dir + "/trust"}); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = b.Bytes()
		} else if !bytes.Equal(first, b.Bytes()) {
			t.Fatal("two runs differ")
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	for _, c := range []struct {
		name, want string
		change     func(*Spec, string)
	}{
		{"no program", "the program for /init", func(s *Spec, dir string) { s.Init = dir + "/none" }},
		{"unknown module", "no module nosuch", func(s *Spec, _ string) { s.Modules = []string{"nosuch"} }},
		{"no index", "depmod", func(s *Spec, dir string) { s.KernelDir = dir + "/trust" }},
		{"link in the trust policy", "isn't a regular file", func(_ *Spec, dir string) {
			if err := os.Symlink("trust.yaml", dir+"/trust/link"); err != nil {
				t.Fatal(err)
			}
		}},
		{"no CA file", "none.pem", func(s *Spec, dir string) { s.CA = dir + "/none.pem" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := host(t, kernel)
			s := Spec{Init: dir + "/agent", KernelDir: dir + "/k/6.12", Trust: dir + "/trust"}
			c.change(&s, dir)
			if _, err := Write(io.Discard, s); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
