package identity

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

// structure is one of an SMBIOS table: its type, the formatted part after the header, its strings.
func structure(kind byte, formatted string, texts ...string) []byte {
	b := append([]byte{kind, byte(4 + len(formatted)), 1, 0}, formatted...)
	for _, text := range texts {
		b = append(append(b, text...), 0)
	}
	if len(texts) == 0 {
		b = append(b, 0)
	}
	return append(b, 0)
}

// table is what QEMU makes for -smbios type=1 and several -smbios type=11.
func table(texts ...string) []byte {
	return bytes.Join([][]byte{
		structure(0, "\x01\x02\x00\x00\x03\x00", "SeaBIOS", "1.16", "04/01/2014"), structure(1, "\x00\x00"),
		structure(11, string([]byte{byte(len(texts))}), texts...), structure(127, ""), []byte("what follows doesn't count"),
	}, nil)
}

// sysWith is a sysfs with this file.
func sysWith(t testing.TB, name string, content []byte) string {
	t.Helper()
	sys := t.TempDir()
	path := filepath.Join(sys, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, 0o600)); err != nil {
		t.Fatal(err)
	}
	return sys
}

func TestSMBIOS(t *testing.T) {
	ca := pkitest.NewCA(t, "CA")
	const plain, binary = "io.systemd.credential:powernode.", "io.systemd.credential.binary:powernode."
	b64 := base64.StdEncoding.EncodeToString
	long := make([]string, 300)
	for i := range long {
		long[i] = "vendor string"
	}
	for _, c := range []struct {
		name  string
		table []byte
		err   string
		none  bool
	}{
		{"all", table("vendor:x", plain+"instance_uuid="+uuid, "powernode.bootstrap_token="+token, plain+"platform_url=https://p.example", binary+"ca_pem="+b64(ca.PEM()), plain+"other=x", "io.systemd.credential:login.motd=y"), "", false},
		{"several structures", append(structure(11, "\x02", plain+"instance_uuid="+uuid, plain+"bootstrap_token="+token), table(plain+"platform_url=https://p.example", plain+"ca_pem="+b64(ca.PEM()))...), "", false},
		{"many strings", table(append(long, plain+"instance_uuid="+uuid, plain+"bootstrap_token="+token, plain+"platform_url=https://p.example", plain+"ca_pem="+b64(ca.PEM()))...), "", false},
		{"none of ours", table("powernode", "powernode.=x", "powernode.ca_file=/etc/passwd", "instance_uuid="+uuid), "none of the firmware's OEM strings (4)", true},
		{"no strings", structure(127, ""), "OEM strings (0)", true},
		{"empty", nil, "OEM strings (0)", true},
		{"after the end", append(structure(127, ""), table("powernode.instance_uuid="+uuid)...), "OEM strings (0)", true},
		{"twice", table("powernode.bootstrap_token="+token, plain+"bootstrap_token="+token+"x"), "there twice", false},
		{"no base64", table(binary + "bootstrap_token=***" + token), "isn't in base64", false},
		{"no text", table(binary + "bootstrap_token=" + b64([]byte("\xff\xfe"+token))), "isn't a text", false},
		{"zero bytes", table(binary + "bootstrap_token=" + b64([]byte(token+"\x00"+token))), "isn't a text", false},
		{"a bad value", table("powernode.platform_url=http://p"), "powernode.platform_url: platform URL", false},
		{"a short structure", []byte{11, 3, 0, 0, 0, 0}, "a structure of 3 bytes", false},
		{"a long structure", []byte{11, 200, 0, 0, 0, 0}, "a structure of 200 bytes", false},
		{"strings without end", append([]byte{11, 5, 0, 0, 1}, "powernode.instance_uuid="...), "have no end", false},
		{"huge", make([]byte, smbiosMax+1), "longer than", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, err := SMBIOS{sysWith(t, "firmware/dmi/tables/DMI", c.table)}.Find(t.Context())
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || errors.Is(err, ErrNotFound) != c.none || strings.Contains(err.Error(), token) {
					t.Errorf("%v, want %q", err, c.err)
				}
				return
			}
			if err != nil || found.InstanceID != uuid || found.Token.Reveal() != token || found.PlatformURL != "https://p.example" || string(found.CAPEM) != string(ca.PEM()) {
				t.Errorf("%+v, %v", found, err)
			}
		})
	}
	if _, err := (SMBIOS{t.TempDir()}).Find(t.Context()); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func FuzzSMBIOS(f *testing.F) {
	f.Add(table("powernode.instance_uuid="+uuid, "io.systemd.credential.binary:powernode.bootstrap_token=QUFBQQ=="))
	f.Add(structure(127, ""))
	f.Add([]byte{11, 4, 0, 0, 'a', 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		texts, err := oemStrings(b)
		if err != nil {
			return
		}
		for _, text := range texts {
			if !bytes.Contains(b, []byte(text)) {
				t.Fatalf("%q isn't there", text)
			}
		}
		if raw, err := parseOEMStrings(texts); err == nil {
			if raw.CAFile != "" {
				t.Fatal("a host names a file of the machine")
			}
			if found, err := raw.Check("fuzz", nil); err == nil {
				mustBeSound(t, found)
			}
		}
	})
}

func TestDMI(t *testing.T) {
	for text, want := range map[string]string{
		strings.ToUpper(uuid) + "\n":             "",
		"00000000-0000-0000-0000-000000000000\n": "many machines have",
		"FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF":   "many machines have",
		"03000200-0400-0500-0006-000700080009":   "many machines have",
		"Not Settable":                           "isn't a UUID",
	} {
		found, err := DMI{sysWith(t, "class/dmi/id/product_uuid", []byte(text))}.Find(t.Context())
		if want == "" && (err != nil || found.DMIUUID != uuid || found.InstanceID != "") {
			t.Errorf("%q: %+v, %v", text, found, err)
		}
		if want != "" && (!errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
