package db

import (
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// stranger is the poll of machine number n, from one address of many.
func stranger(n int, from string) ClaimPoll {
	key := sha256.Sum256(fmt.Append(nil, n))
	return ClaimPoll{MAC: fmt.Sprintf("02:00:00:%02x:%02x:%02x", n>>16, n>>8&255, n&255), KeyHash: key[:], From: from, Network: from, Site: from, Token: fmt.Sprint("token ", n), TokenTTL: time.Hour}
}

// TestClaimsAreBounded fills the platform with claims, from one address and from many: who still asks isn't pushed out.
func TestClaimsAreBounded(t *testing.T) {
	d, clock := newDB(t)
	ctx := t.Context()
	bounds := claimBounds{all: 40, site: 20, network: 10}
	poll := func(n int, from string) (Claim, error) {
		in := stranger(n, from)
		in.bounds = bounds
		return d.PollClaim(ctx, in)
	}
	n := 0
	fill := func(most int, from func(i int) string) {
		t.Helper()
		for i := range most {
			_, err := poll(n+i, from(i))
			check(t, err)
		}
		n += most
	}
	const one = "192.0.2.1"
	fill(bounds.network, func(int) string { return one })
	first, err := poll(0, one)
	check(t, err)
	if _, err := poll(n, one); !errors.Is(err, ErrClaimsFull) || !errors.Is(err, ErrNetworkFull) {
		t.Fatalf("one more from one address: %v", err)
	}
	clock.advance(claimSilence + time.Second)
	again, err := poll(0, one)
	if check(t, err); again.Code != first.Code {
		t.Errorf("%s, before %s", again.Code, first.Code)
	}
	if _, err := poll(n, one); err != nil {
		t.Errorf("one more, in place of a silent one: %v", err)
	}
	n++
	if again, err = poll(0, one); err != nil || again.Code != first.Code {
		t.Errorf("who still asks was pushed out: %v", err)
	}

	fill(bounds.all-bounds.network, func(i int) string { return fmt.Sprintf("198.51.100.%d", i/5) })
	list, err := d.Claims(ctx)
	if check(t, err); len(list) != bounds.all {
		t.Fatalf("%d claims", len(list))
	}
	accepted := list[len(list)-1]
	_, changed, err := d.AcceptClaim(ctx, Acceptance{Code: accepted.Code, Node: "web-1", Create: true})
	if check(t, err); !changed {
		t.Error("accepted, and nothing changed")
	}
	if _, changed, err = d.AcceptClaim(ctx, Acceptance{Code: accepted.Code, Node: "web-1"}); err != nil || changed {
		t.Errorf("accepted again: %v, %v", changed, err)
	}
	clock.advance(claimSilence + time.Second)
	fill(bounds.all-1, func(i int) string { return "2001:db8::" + fmt.Sprint(i/5) })
	if _, err := poll(n, "2001:db8:1::"); !errors.Is(err, ErrClaimsFull) || errors.Is(err, ErrNetworkFull) {
		t.Errorf("one more, and all of them ask: %v", err)
	}
	list, err = d.Claims(ctx)
	if check(t, err); len(list) != bounds.all || !slices.ContainsFunc(list, func(c Claim) bool { return c.ID == accepted.ID }) {
		t.Errorf("%d claims, or an accepted one was pushed out", len(list))
	}
}

// TestClaimsOfOneSite: who has many networks has them at one site.
func TestClaimsOfOneSite(t *testing.T) {
	d, clock := newDB(t)
	poll := func(n int, network, site string) error {
		in := stranger(n, fmt.Sprint("address ", n))
		in.Network, in.Site, in.bounds = network, site, claimBounds{all: 40, site: 20, network: 10}
		_, err := d.PollClaim(t.Context(), in)
		return err
	}
	for n := range 10 {
		check(t, poll(n, "first", "theirs"))
	}
	if err := poll(10, "first", "theirs"); !errors.Is(err, ErrNetworkFull) {
		t.Errorf("one more of one network, each from another address: %v", err)
	}
	for n := 10; n < 20; n++ {
		check(t, poll(n, "second", "theirs"))
	}
	if err := poll(20, "third", "theirs"); !errors.Is(err, ErrNetworkFull) {
		t.Errorf("one more of one site: %v", err)
	}
	check(t, poll(21, "ours", "ours"))
	// A machine that moves counts where it is.
	check(t, poll(0, "ours", "ours"))
	check(t, poll(20, "third", "theirs"))
	clock.advance(claimSilence + time.Second)
	check(t, poll(22, "third", "theirs"))
}

// TestClaimCodes checks the letters of codes, and that chance has them all.
func TestClaimCodes(t *testing.T) {
	seen := map[rune]int{}
	for range 2000 {
		code := newClaimCode()
		if parsed, ok := nodeapi.ParseClaimCode(code); !ok || parsed != code {
			t.Fatalf("%q is no code", code)
		}
		for _, c := range code {
			seen[c]++
		}
	}
	// 533 of each are expected, with a deviation of 23.
	for _, c := range nodeapi.ClaimAlphabet {
		if seen[c] < 350 || seen[c] > 720 {
			t.Errorf("%c comes %d times of 16000", c, seen[c])
		}
	}
}

// TestClaimKeepsNoSecret looks for the token in the whole database.
func TestClaimKeepsNoSecret(t *testing.T) {
	d, _ := newDB(t)
	c, err := d.PollClaim(t.Context(), stranger(1, "192.0.2.1"))
	check(t, err)
	_, _, err = d.AcceptClaim(t.Context(), Acceptance{Code: c.Code, Node: "web-1", Create: true})
	check(t, err)
	for range 3 {
		_, err = d.PollClaim(t.Context(), stranger(1, "192.0.2.1"))
		check(t, err)
	}
	rows, err := d.read.Query(t.Context(), "SELECT hash, id, claim_id FROM tokens")
	tokens := first(collect(rows, err, func(rows *sql.Rows, text *string) error {
		var hash []byte
		var id, claim string
		err := rows.Scan(&hash, &id, &claim)
		*text = string(hash) + id + claim
		return err
	}))
	if len(tokens) != 1 || strings.Contains(tokens[0], "token") {
		t.Errorf("tokens: %q", tokens)
	}
}

// TestClaimKnown: a poll that says nothing new, and one for which there is no room, keep nobody from writing.
func TestClaimKnown(t *testing.T) {
	d, clock := newDB(t)
	ctx := t.Context()
	var heard []asked
	d.write.dialect = listening{d.write.dialect, &heard}
	poll := func(in ClaimPoll) (Claim, bool, error) {
		heard = nil
		in.bounds = claimBounds{all: 2, site: 2, network: 2}
		c, err := d.PollClaim(ctx, in)
		return c, len(heard) > 0, err
	}
	in := stranger(1, "192.0.2.1")
	begun, wrote, err := poll(in)
	if check(t, err); !wrote || begun.State != ClaimPending {
		t.Errorf("a new one: %+v", begun)
	}
	if c, wrote, err := poll(in); err != nil || wrote || c.Code != begun.Code {
		t.Errorf("the same again: %+v, %v, written: %t", c, err, wrote)
	}
	in.AgentVersion, in.Hostname = "v2", "late"
	if c, wrote, err := poll(in); err != nil || !wrote || c.AgentVersion != "v2" || c.Hostname != "late" {
		t.Errorf("something new: %+v, %v, written: %t", c, err, wrote)
	}
	clock.advance(claimFresh)
	if c, wrote, err := poll(in); err != nil || !wrote || !c.PolledAt.Equal(clock.now()) {
		t.Errorf("after a while: %+v, %v, written: %t", c, err, wrote)
	}
	_, _, err = poll(stranger(2, "192.0.2.1"))
	check(t, err)
	if _, wrote, err := poll(stranger(3, "192.0.2.1")); !errors.Is(err, ErrNetworkFull) || wrote {
		t.Errorf("no room: %v, written: %t", err, wrote)
	}
	_, _, err = d.AcceptClaim(ctx, Acceptance{Code: begun.Code, Node: "web-1", Create: true})
	check(t, err)
	if c, wrote, err := poll(in); err != nil || !wrote || c.State != ClaimAccepted {
		t.Errorf("accepted: %+v, %v, written: %t", c, err, wrote)
	}
}
