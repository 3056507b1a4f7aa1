package db

import (
	"crypto/sha256"
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
	return ClaimPoll{MAC: fmt.Sprintf("02:00:00:%02x:%02x:%02x", n>>16, n>>8&255, n&255), KeyHash: key[:], From: from, Token: fmt.Sprint("token ", n), TokenTTL: time.Hour}
}

// TestClaimsAreBounded fills the platform with claims, from one address and from many: who still asks isn't pushed out.
func TestClaimsAreBounded(t *testing.T) {
	d, clock := newDB(t)
	ctx := t.Context()
	bounds := claimBounds{all: 40, from: 10}
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
	fill(bounds.from, func(int) string { return one })
	first, err := poll(0, one)
	check(t, err)
	if _, err := poll(n, one); !errors.Is(err, ErrClaimsFull) {
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

	fill(bounds.all-bounds.from, func(i int) string { return fmt.Sprintf("198.51.100.%d", i/5) })
	list, err := d.Claims(ctx)
	if check(t, err); len(list) != bounds.all {
		t.Fatalf("%d claims", len(list))
	}
	accepted := list[len(list)-1]
	_, err = d.AcceptClaim(ctx, Acceptance{Code: accepted.Code, Node: "web-1", Create: true})
	check(t, err)
	clock.advance(claimSilence + time.Second)
	fill(bounds.all-1, func(i int) string { return "2001:db8::" + fmt.Sprint(i/5) })
	if _, err := poll(n, "2001:db8:1::"); !errors.Is(err, ErrClaimsFull) {
		t.Errorf("one more, and all of them ask: %v", err)
	}
	list, err = d.Claims(ctx)
	if check(t, err); len(list) != bounds.all || !slices.ContainsFunc(list, func(c Claim) bool { return c.ID == accepted.ID }) {
		t.Errorf("%d claims, or an accepted one was pushed out", len(list))
	}
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
	_, err = d.AcceptClaim(t.Context(), Acceptance{Code: c.Code, Node: "web-1", Create: true})
	check(t, err)
	for range 3 {
		_, err = d.PollClaim(t.Context(), stranger(1, "192.0.2.1"))
		check(t, err)
	}
	var tokens int
	var text string
	check(t, d.read.QueryRow("SELECT count(*), group_concat(hex(hash) || id || claim_id) FROM tokens").Scan(&tokens, &text))
	if tokens != 1 || strings.Contains(text, "token") {
		t.Errorf("%d tokens: %s", tokens, text)
	}
}
