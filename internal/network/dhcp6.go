package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/dhcpv6/nclient6"
	"github.com/insomniacslk/dhcp/iana"
)

// dhcp6 speaks DHCPv6 (RFC 8415) on one link: for an address where stateful is set, else only for the
// servers' names.
type dhcp6 struct {
	name     string
	mac      net.HardwareAddr
	stateful bool
}

// duid is the DUID-LL of the link: the same at each boot without anything kept (section 11.4).
func (d dhcp6) duid() *dhcpv6.DUIDLL {
	return &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: d.mac}
}

// message makes a message of ours, with the identity association of the address a, if any. As in
// DHCPv4, the library's constructor would wait for random numbers.
func (d dhcp6) message(kind dhcpv6.MessageType, server []byte, a *lease) *dhcpv6.Message {
	m := &dhcpv6.Message{MessageType: kind}
	n := rand.Uint32()
	m.TransactionID = dhcpv6.TransactionID{byte(n), byte(n >> 8), byte(n >> 16)}
	m.AddOption(dhcpv6.OptClientID(d.duid()))
	if server != nil {
		m.AddOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionServerID, OptionData: server})
	}
	m.AddOption(dhcpv6.OptElapsedTime(0))
	m.AddOption(dhcpv6.OptRequestedOption(
		dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionDomainSearchList, dhcpv6.OptionNTPServer, dhcpv6.OptionInformationRefreshTime,
	))
	if !d.stateful {
		return m
	}
	na := &dhcpv6.OptIANA{}
	copy(na.IaId[:], d.mac[max(len(d.mac)-4, 0):])
	if a != nil && a.address.IsValid() {
		na.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: a.address.Addr().AsSlice()})
	}
	m.AddOption(na)
	return m
}

func (d dhcp6) obtain(ctx context.Context, before *lease) (*lease, error) {
	if !d.stateful {
		return d.ask(ctx, dhcpv6.MessageTypeInformationRequest, nil, nil, dhcpv6.MessageTypeReply)
	}
	offer, err := d.ask(ctx, dhcpv6.MessageTypeSolicit, nil, before, dhcpv6.MessageTypeAdvertise)
	if err != nil {
		return nil, err
	}
	return d.ask(ctx, dhcpv6.MessageTypeRequest, offer.duid, offer, dhcpv6.MessageTypeReply)
}

func (d dhcp6) renew(ctx context.Context, l *lease, rebind bool) (*lease, error) {
	switch {
	case !d.stateful:
		return d.ask(ctx, dhcpv6.MessageTypeInformationRequest, nil, nil, dhcpv6.MessageTypeReply)
	case rebind:
		return d.ask(ctx, dhcpv6.MessageTypeRebind, nil, l, dhcpv6.MessageTypeReply)
	default:
		return d.ask(ctx, dhcpv6.MessageTypeRenew, l.duid, l, dhcpv6.MessageTypeReply)
	}
}

// ask sends one message, again and again for some seconds, and takes the first answer of the wanted
// kind that is for us, from the named server if there is one, and makes a lease.
func (d dhcp6) ask(ctx context.Context, kind dhcpv6.MessageType, server []byte, a *lease, want dhcpv6.MessageType) (*lease, error) {
	m := d.message(kind, server, a)
	conn, err := nclient6.NewIPv6UDPConn(d.name, dhcpv6.DefaultClientPort)
	if err != nil {
		return nil, fmt.Errorf("ask by DHCPv6 on %s: %w", d.name, err)
	}
	readable := readable{PacketConn: conn, parse: func(b []byte) { _, _ = dhcpv6.MessageFromBytes(b) }}
	c, err := nclient6.NewWithConn(readable, d.mac, nclient6.WithTimeout(firstWait), nclient6.WithRetry(requestTries))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ask by DHCPv6 on %s: %w", d.name, err), conn.Close())
	}
	defer c.Close() //nolint:errcheck // datagrams are sent or not by then
	var got *lease
	var refused error
	begun := time.Now()
	_, err = c.SendAndRead(ctx, c.RemoteAddr(), m, func(r *dhcpv6.Message) bool {
		if id := r.Options.ClientID(); r.MessageType != want || id == nil || !id.Equal(d.duid()) {
			return false
		}
		l, err := leaseFrom6(r, d.stateful, begun)
		if err == nil && server != nil && !bytes.Equal(l.duid, server) {
			return false
		}
		got, refused = l, err
		return err == nil || errors.Is(err, errGone)
	})
	switch {
	case err == nil:
		return got, refused
	case refused != nil:
		return nil, fmt.Errorf("a DHCPv6 answer on %s is refused: %w", d.name, refused)
	case errors.Is(err, nclient6.ErrNoResponse):
		return nil, fmt.Errorf("no DHCPv6 server answers on %s", d.name)
	default:
		return nil, fmt.Errorf("ask by DHCPv6 on %s: %w", d.name, err)
	}
}
