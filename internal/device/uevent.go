package device

import (
	"bytes"
	"fmt"
	"strings"
)

// eventMax is the largest message: the kernel's own limit is 2 KiB of variables (UEVENT_BUFFER_SIZE)
// with 64 of them, before which the header stands.
const eventMax = 16 << 10

// Event is one message of the kernel about a device.
type Event struct {
	Action    string // add, remove, change, bind, unbind, move, online, offline
	DevPath   string // below /sys
	Subsystem string // block, net, pci, ...
	// Env are all variables, such as DEVNAME, MODALIAS, PARTNAME.
	Env map[string]string
}

// parseEvent reads a message of NETLINK_KOBJECT_UEVENT: "action@devpath" and KEY=VALUE, each ended
// by a zero byte (lib/kobject_uevent.c). What udev sends begins with "libudev" and is refused.
func parseEvent(message []byte) (Event, error) {
	if len(message) > eventMax {
		return Event{}, fmt.Errorf("an event of %d bytes", len(message))
	}
	head, rest, _ := bytes.Cut(message, []byte{0})
	action, path, ok := strings.Cut(string(head), "@")
	if !ok || action == "" || !strings.HasPrefix(path, "/") {
		return Event{}, fmt.Errorf("an event that begins with %.40q", head)
	}
	e := Event{Action: action, DevPath: path, Env: map[string]string{}}
	for part := range bytes.SplitSeq(rest, []byte{0}) {
		if key, value, ok := strings.Cut(string(part), "="); ok {
			e.Env[key] = value
		}
	}
	e.Subsystem = e.Env["SUBSYSTEM"]
	return e, nil
}
