package claim

import (
	"bufio"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Machine is what a machine says of itself. Only MAC is needed.
type Machine struct {
	// MAC is the hardware address that the machine is known by; MACs are all that it has.
	MAC  string
	MACs []string
	// DMIUUID is the firmware's UUID of the machine.
	DMIUUID, Hostname string
	// AgentVersion and Architecture ("amd64") are those of the agent that runs.
	AgentVersion, Architecture string
	// Hint is what kind of machine it is, for the operator's eyes.
	Hint string
}

// Look finds out what the machine can say of itself: the hardware address of the link with the default route, or else of the first that is a
// device by its name, or else of the first at all; its host name, and what the firmware calls it. sys and proc are where the kernel's
// file systems are; "" are /sys and /proc. The agent's own fields stay empty.
func Look(sys, proc string) Machine {
	if sys == "" {
		sys = "/sys"
	}
	if proc == "" {
		proc = "/proc"
	}
	var m Machine
	m.MAC, m.MACs = addresses(filepath.Join(sys, "class/net"), defaultLink(filepath.Join(proc, "net")))
	dmi := filepath.Join(sys, "class/dmi/id")
	if id := strings.ToLower(line(filepath.Join(dmi, "product_uuid"))); strings.Trim(id, "0-") != "" && strings.Trim(id, "f-") != "" {
		m.DMIUUID = id
	}
	m.Hint = strings.TrimSpace(line(filepath.Join(dmi, "sys_vendor")) + " " + line(filepath.Join(dmi, "product_name")))
	// The names of a machine that nobody named.
	if name := line(filepath.Join(proc, "sys/kernel/hostname")); name != "(none)" && name != "localhost" {
		m.Hostname = name
	}
	return m
}

// addresses returns the hardware address to say, and all of them.
func addresses(dir, preferred string) (mac string, all []string) {
	entries, _ := os.ReadDir(dir) // sorted by name; none without a network
	physical, other := "", ""
	for _, e := range entries {
		name := e.Name()
		address, err := net.ParseMAC(line(filepath.Join(dir, name, "address")))
		if err != nil || !slices.ContainsFunc(address, func(b byte) bool { return b != 0 }) {
			continue
		}
		text := address.String()
		if !slices.Contains(all, text) {
			all = append(all, text)
		}
		_, err = os.Stat(filepath.Join(dir, name, "device"))
		switch {
		case name == preferred:
			mac = text
		case err == nil && physical == "":
			physical = text
		case other == "":
			other = text
		}
	}
	for _, next := range []string{physical, other} {
		if mac == "" {
			mac = next
		}
	}
	return mac, all
}

// defaultLink returns the link that the kernel's default route of the least metric leads to, IPv4 first; "" for none.
func defaultLink(dir string) string {
	// Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT (net/ipv4/fib_trie.c)
	link := leastRoute(filepath.Join(dir, "route"), 0, 6, 10, func(f []string) bool { return f[1] == "00000000" && f[7] == "00000000" })
	if link != "" {
		return link
	}
	// destination length source length next-hop metric refcnt use flags link (net/ipv6/route.c)
	return leastRoute(filepath.Join(dir, "ipv6_route"), 9, 5, 16, func(f []string) bool {
		return f[0] == strings.Repeat("0", 32) && f[1] == "00" && f[9] != "lo"
	})
}

// leastRoute returns the column name of the matching line whose column metric, a number of that base, is the least.
func leastRoute(path string, name, metric, base int, match func(fields []string) bool) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	link, least := "", uint64(0)
	lines := bufio.NewScanner(io.LimitReader(f, 1<<20))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || !match(fields) {
			continue
		}
		n, err := strconv.ParseUint(fields[metric], base, 64)
		if err == nil && (link == "" || n < least) {
			link, least = fields[name], n
		}
	}
	return link
}

// line returns the first line of one of the kernel's files, "" where it can't be read.
func line(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(first)
}
