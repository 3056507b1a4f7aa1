package network

import (
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// errDefect has a fake panic.
var errDefect = errors.New("index out of range")

// TestKeeperSurvivesADefect: what an answer does to its reader ends neither the process nor the attempts.
func TestKeeperSurvivesADefect(t *testing.T) {
	f := &fakeServer{expire: time.Hour, answers: []error{errDefect, nil, errDefect}}
	got := keepFor(t, f, 50*time.Minute)
	if want := []string{"obtain 0s", "obtain 1s", "renew 30m1s", "renew 41m16s"}; !slices.Equal(f.asked, want) {
		t.Errorf("asked %q, want %q", f.asked, want)
	}
	if len(got) != 3 || got[0].err == nil || !strings.Contains(got[0].err.Error(), "a defect") || got[2].lease == nil {
		t.Errorf("%+v", got)
	}
}

// TestManagerSurvivesADefect that shows once.
func TestManagerSurvivesADefect(t *testing.T) {
	wired := eth0
	wired.carrier = true
	sys := &fakeSystem{all: []link{lo, wired}, panics: 1}
	bubble(t, sys, &fakeServer{}, func(t *testing.T, n *Network, console func() string) {
		if s, err := n.Wait(t.Context()); err != nil || !s.Usable {
			t.Errorf("%+v, %v", s, err)
		}
		if !strings.Contains(console(), "network: a defect: index out of range") {
			t.Errorf("the console:\n%s", console())
		}
	})
	sys = &fakeSystem{all: []link{lo, wired}, panics: 1 << 20}
	bubble(t, sys, &fakeServer{}, func(t *testing.T, n *Network, _ func() string) {
		if _, err := n.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "a defect") {
			t.Errorf("that shows always: %v", err)
		}
	})
}

// datagrams is a socket that has some.
type datagrams struct {
	net.PacketConn
	left []string
}

func (d *datagrams) ReadFrom(b []byte) (int, net.Addr, error) {
	if len(d.left) == 0 {
		return 0, nil, io.EOF
	}
	text := d.left[0]
	d.left = d.left[1:]
	if text == "worse" {
		panic(errDefect)
	}
	return copy(b, text), nil, nil
}

func TestUnreadableDatagramsAreHeldBack(t *testing.T) {
	parse := func(b []byte) {
		if string(b) == "bad" {
			panic(errDefect)
		}
	}
	c := readable{&datagrams{left: []string{"bad", "worse", "good", "bad"}}, parse}
	b := make([]byte, 10)
	if n, _, err := c.ReadFrom(b); err != nil || string(b[:n]) != "good" {
		t.Errorf("%q, %v", b[:n], err)
	}
	if _, _, err := c.ReadFrom(b); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	c = readable{&datagrams{left: slices.Repeat([]string{"bad"}, 2*maxUnreadable)}, parse}
	if _, _, err := c.ReadFrom(b); !errors.Is(err, errUnreadable) {
		t.Error(err)
	}
}

// TestLeaseStaysAfterAFlap: the cable was out for a moment, and the server doesn't answer yet.
func TestLeaseStaysAfterAFlap(t *testing.T) {
	wired := eth0
	wired.carrier = true
	sys := &fakeSystem{all: []link{lo, wired}}
	server := &fakeServer{expire: time.Hour, answers: append([]error{nil}, slices.Repeat([]error{errSilent}, 999)...)}
	bubble(t, sys, server, func(t *testing.T, n *Network, console func() string) {
		if _, err := n.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		sys.set(func(f *fakeSystem) { f.all[1].carrier = false })
		time.Sleep(3 * time.Second)
		sys.set(func(f *fakeSystem) { f.all[1].carrier = true })
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if got := sys.done(); strings.Contains(got, " -") || !n.State().Usable {
			t.Errorf("did:\n%s\n%+v", got, n.State())
		}
		if before := server.askedAgain(); len(before) < 3 || before[1] == nil {
			t.Errorf("asked again for %v", before)
		}
		// Its end is its end all the same.
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := sys.done(); !strings.HasSuffix(got, "\neth0 -10.0.0.7/24") || n.State().Usable || !strings.Contains(console(), "lost 10.0.0.7/24") {
			t.Errorf("did:\n%s\n%s", got, console())
		}
	})
}
