package network

import (
	"errors"
	"net"
)

// readable is a socket that holds back what parse panics at, or the socket itself. The DHCP library reads
// in a goroutine of its own, where nobody else could keep a panic from ending the process; what it reads
// is anybody's who is on the link.
type readable struct {
	net.PacketConn
	parse func([]byte)
}

// maxUnreadable bounds one call of ReadFrom; the link's server is asked again after that.
const maxUnreadable = 1000

var errUnreadable = errors.New("nothing that comes over the link can be read")

// ReadFrom implements net.PacketConn.
func (c readable) ReadFrom(b []byte) (int, net.Addr, error) {
	for range maxUnreadable {
		if n, from, ok, err := c.read(b); ok {
			return n, from, err
		}
	}
	return 0, nil, errUnreadable
}

func (c readable) read(b []byte) (n int, from net.Addr, ok bool, err error) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	if n, from, err = c.PacketConn.ReadFrom(b); err == nil {
		c.parse(b[:n])
	}
	return n, from, true, err
}
