package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/iana"
)

// dhcp4 speaks DHCPv4 (RFC 2131) on one link.
type dhcp4 struct {
	name string
	mac  net.HardwareAddr
}

// A question is sent again after 1, 2, 4, ... seconds with the same transaction, so that the answer to
// the first still counts: servers that look for the address on the network before they offer it take
// three seconds. A switch that learns who is there (spanning tree) takes thirty.
const (
	firstWait     = time.Second
	discoverTries = 5
	requestTries  = 3
)

// wanted4 are the options asked for. What isn't asked for may come all the same.
var wanted4 = []dhcpv4.OptionCode{
	dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionDomainNameServer,
	dhcpv4.OptionDomainName, dhcpv4.OptionDNSDomainSearchList, dhcpv4.OptionHostName, dhcpv4.OptionInterfaceMTU,
	dhcpv4.OptionNTPServers, dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue,
}

// message makes a message of ours. The library's own constructors wait for the kernel's random numbers,
// at full speed and deaf to any context, which on a machine without a source of them is for minutes after
// power-on. A transaction number only has to differ from others on the link.
func (d dhcp4) message(kind dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: iana.HWTypeEthernet, ClientHWAddr: d.mac,
		ClientIPAddr: net.IPv4zero, YourIPAddr: net.IPv4zero, ServerIPAddr: net.IPv4zero, GatewayIPAddr: net.IPv4zero,
		Options: dhcpv4.Options{},
	}
	binary.NativeEndian.PutUint32(m.TransactionID[:], rand.Uint32())
	m.UpdateOption(dhcpv4.OptMessageType(kind))
	m.UpdateOption(dhcpv4.OptParameterRequestList(wanted4...))
	m.UpdateOption(dhcpv4.OptMaxMessageSize(nclient4.MaxMessageSize))
	return m
}

// obtain takes the first offer that makes a lease, so that a broken server doesn't hide a good one.
func (d dhcp4) obtain(ctx context.Context, before *lease) (*lease, error) {
	discover := d.message(dhcpv4.MessageTypeDiscover)
	if before != nil && before.address.IsValid() {
		discover.UpdateOption(dhcpv4.OptRequestedIPAddress(before.address.Addr().AsSlice()))
	}
	c, err := d.client(nil, discoverTries)
	if err != nil {
		return nil, err
	}
	defer c.Close() //nolint:errcheck // datagrams are sent or not by then
	var refused error
	offer, err := c.SendAndRead(ctx, c.RemoteAddr(), discover, func(m *dhcpv4.DHCPv4) bool {
		if m.MessageType() != dhcpv4.MessageTypeOffer {
			return false
		}
		_, refused = leaseFrom4(m, time.Now())
		return refused == nil
	})
	if err != nil {
		return nil, d.failed(err, refused)
	}
	request := d.message(dhcpv4.MessageTypeRequest)
	request.TransactionID = offer.TransactionID
	request.UpdateOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr))
	request.UpdateOption(dhcpv4.OptServerIdentifier(offer.ServerIdentifier()))
	return d.confirm(ctx, c.RemoteAddr(), request, offer.ServerIdentifier(), nil)
}

// renew asks the lease's own server, from the leased address; or anybody, as one who has none.
func (d dhcp4) renew(ctx context.Context, l *lease, rebind bool) (*lease, error) {
	request := d.message(dhcpv4.MessageTypeRequest)
	request.ClientIPAddr = l.address.Addr().AsSlice()
	if rebind {
		return d.confirm(ctx, &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ServerPort}, request, nil, nil)
	}
	server := net.IP(l.server.AsSlice())
	return d.confirm(ctx, &net.UDPAddr{IP: server, Port: dhcpv4.ServerPort}, request, server,
		&net.UDPAddr{IP: l.address.Addr().AsSlice(), Port: dhcpv4.ClientPort})
}

// client returns the library's client, which sends from our address or, where that is nil, as one who has none.
func (d dhcp4) client(ours *net.UDPAddr, tries int) (*nclient4.Client, error) {
	var conn net.PacketConn
	var err error
	if ours != nil {
		conn, err = net.ListenUDP("udp4", ours)
	} else {
		conn, err = nclient4.NewRawUDPConn(d.name, dhcpv4.ClientPort)
	}
	if err != nil {
		return nil, fmt.Errorf("ask by DHCP on %s: %w", d.name, err)
	}
	readable := readable{PacketConn: conn, parse: func(b []byte) { _, _ = dhcpv4.FromBytes(b) }}
	c, err := nclient4.NewWithConn(readable, d.mac, nclient4.WithTimeout(firstWait), nclient4.WithRetry(tries))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ask by DHCP on %s: %w", d.name, err), conn.Close())
	}
	return c, nil
}

// confirm sends a request, from our address if there is one, and waits for the server's yes or no; from nil
// is any server.
func (d dhcp4) confirm(ctx context.Context, to *net.UDPAddr, request *dhcpv4.DHCPv4, from net.IP, ours *net.UDPAddr) (*lease, error) {
	c, err := d.client(ours, requestTries)
	if err != nil {
		return nil, err
	}
	defer c.Close() //nolint:errcheck // datagrams are sent or not by then
	var refused error
	var got *lease
	begun := time.Now() // a lease counts from when it was asked for (RFC 2131 section 4.4.1)
	ack, err := c.SendAndRead(ctx, to, request, func(m *dhcpv4.DHCPv4) bool {
		if from != nil && !m.ServerIdentifier().Equal(from) {
			return false
		}
		switch m.MessageType() {
		case dhcpv4.MessageTypeNak:
			return true
		case dhcpv4.MessageTypeAck:
			got, refused = leaseFrom4(m, begun)
			return refused == nil
		default:
			return false
		}
	})
	switch {
	case err != nil:
		return nil, d.failed(err, refused)
	case ack.MessageType() == dhcpv4.MessageTypeNak:
		return nil, errGone
	}
	return got, nil
}

// failed says why a question brought nothing.
func (d dhcp4) failed(err, refused error) error {
	switch {
	case refused != nil:
		return fmt.Errorf("a DHCP answer on %s is refused: %w", d.name, refused)
	case errors.Is(err, nclient4.ErrNoResponse):
		return fmt.Errorf("no DHCP server answers on %s", d.name)
	default:
		return fmt.Errorf("ask by DHCP on %s: %w", d.name, err)
	}
}
