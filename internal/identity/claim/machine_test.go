package claim

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// kernel lays out files as the kernel's file systems have them.
func kernel(t *testing.T, files map[string]string) (sys, proc string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "sys"), filepath.Join(dir, "proc")
}

const routes = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	0102000A	0003	0	0	1024	00000000	0	0	0
wlan0	00000000	0102000A	0003	0	0	20	00000000	0	0	0
eth0	0000000A	00000000	0001	0	0	0	00FFFFFF	0	0	0
`

const routes6 = `fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00450003     br0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
`

func TestLook(t *testing.T) {
	links := func(more map[string]string) map[string]string {
		files := map[string]string{
			"sys/class/net/lo/address":     "00:00:00:00:00:00\n",
			"sys/class/net/br0/address":    "52:54:00:00:00:0b\n",
			"sys/class/net/eth0/address":   "52:54:00:00:00:e0\n",
			"sys/class/net/eth0/device/x":  "",
			"sys/class/net/wlan0/address":  "52:54:00:00:00:F0\n",
			"sys/class/net/wlan0/device/x": "",
			"sys/class/net/tun0/address":   "\n",
		}
		for name, text := range more {
			files[name] = text
		}
		return files
	}
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  Machine
	}{
		{"nothing", nil, Machine{}},
		{"no route: the first device", links(nil), Machine{MAC: "52:54:00:00:00:e0"}},
		{"the route of the least metric", links(map[string]string{"proc/net/route": routes}), Machine{MAC: "52:54:00:00:00:f0"}},
		{"IPv6 alone", links(map[string]string{"proc/net/route": "Iface\n", "proc/net/ipv6_route": routes6}), Machine{MAC: "52:54:00:00:00:0b"}},
		{"a route through what has no address", links(map[string]string{"proc/net/route": "x\ntun0 00000000 0 0003 0 0 0 00000000 0 0 0\n"}), Machine{MAC: "52:54:00:00:00:e0"}},
		{"no device", map[string]string{"sys/class/net/br0/address": "52:54:00:00:00:0b", "sys/class/net/a/address": "rubbish"}, Machine{MAC: "52:54:00:00:00:0b"}},
		{
			"names", map[string]string{
				"sys/class/dmi/id/product_uuid": "4C4C4544-0042-3510-8052-B4C04F4E3232\n", "sys/class/dmi/id/sys_vendor": "Maker\n", "sys/class/dmi/id/product_name": "Box 7\n",
				"proc/sys/kernel/hostname": "shelf-3\n",
			}, Machine{DMIUUID: "4c4c4544-0042-3510-8052-b4c04f4e3232", Hint: "Maker Box 7", Hostname: "shelf-3"},
		},
		{"no names", map[string]string{"sys/class/dmi/id/product_uuid": "00000000-0000-0000-0000-000000000000\n", "proc/sys/kernel/hostname": "(none)\n"}, Machine{}},
		{"none either", map[string]string{"sys/class/dmi/id/product_uuid": "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF\n", "proc/sys/kernel/hostname": "localhost\n"}, Machine{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Look(kernel(t, tc.files))
			if got.MAC != tc.want.MAC || got.DMIUUID != tc.want.DMIUUID || got.Hint != tc.want.Hint || got.Hostname != tc.want.Hostname {
				t.Errorf("%+v", got)
			}
			if got.MAC != "" && !slices.Contains(got.MACs, got.MAC) {
				t.Errorf("%s isn't in %v", got.MAC, got.MACs)
			}
		})
	}
	// Whatever this machine is.
	t.Logf("%+v", Look("", ""))
}
