package runtime

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

func TestReadMachine(t *testing.T) {
	sys := t.TempDir()
	put := func(name string, content []byte) {
		t.Helper()
		path := filepath.Join(sys, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if m := ReadMachine(sys); m != (nodeapi.Machine{}) {
		t.Errorf("of nothing: %+v", m)
	}
	const uuid, generation = "class/dmi/id/product_uuid", "firmware/qemu_fw_cfg/by_name/etc/vmgenid_guid/raw"
	put(uuid, []byte("0A1B2C3D-4E5F-6071-8293-A4B5C6D7E8F9\n"))
	// qemu -device vmgenid,guid=324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87
	blob := append(make([]byte, 40), 0xaf, 0x6e, 0x4e, 0x32, 0xd1, 0xd1, 0xf6, 0x4b, 0xbf, 0x41, 0xb9, 0xbb, 0x6c, 0x91, 0xfb, 0x87)
	put(generation, append(bytes.Clone(blob), make([]byte, 4040)...))
	want := nodeapi.Machine{DMIUUID: "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9", VMGenerationID: "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87"}
	if m := ReadMachine(sys); m != want {
		t.Errorf("%+v, want %+v", m, want)
	}
	put(uuid, []byte("Not Specified\n"))
	put(generation, blob[:55])
	if m := ReadMachine(sys); m != (nodeapi.Machine{}) {
		t.Errorf("of nonsense: %+v", m)
	}
	put(generation, make([]byte, 4096))
	if m := ReadMachine(sys); m != (nodeapi.Machine{}) {
		t.Errorf("of zeros: %+v", m)
	}
}
