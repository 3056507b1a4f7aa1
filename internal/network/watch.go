package network

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// watched are the groups of route netlink that carry what the manager wants to know.
var watched = []uint{
	unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE,
	unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_IFINFO, unix.RTNLGRP_ND_USEROPT,
}

func (kernel) watch() (<-chan event, func(), error) {
	sock, err := nl.Subscribe(unix.NETLINK_ROUTE, watched...)
	if err != nil {
		return nil, nil, fmt.Errorf("listen to the kernel's network events: %w", err)
	}
	events := make(chan event)
	done, quit := make(chan struct{}), make(chan struct{})
	send := func(e event) bool {
		select {
		case events <- e:
			return true
		case <-quit:
			return false
		}
	}
	go func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil {
				send(event{err: fmt.Errorf("read the kernel's network events: a defect: %v", r)})
			}
		}()
		for {
			msgs, from, err := sock.Receive()
			switch {
			case errors.Is(err, unix.ENOBUFS):
				// The kernel had more to tell than the socket holds; what is so now is asked for.
				if !send(event{changed: true}) {
					return
				}
				continue
			case errors.Is(err, unix.EINTR):
				continue
			case err != nil:
				send(event{err: fmt.Errorf("listen to the kernel's network events: %w", err)})
				return
			case from.Pid != nl.PidKernel:
				continue // any process may send to a netlink socket
			}
			changed := false
			for _, m := range msgs {
				if m.Header.Type != unix.RTM_NEWNDUSEROPT {
					changed = true
				} else if ad, ok := parseNDUserOpt(m.Data); ok && !send(event{advert: &ad}) {
					return
				}
			}
			if changed && !send(event{changed: true}) {
				return
			}
		}
	}()
	stop := func() {
		close(quit)
		sock.Close()
		<-done
	}
	return events, stop, nil
}
