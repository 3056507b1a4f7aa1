package enroll

import (
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"
)

// TestDecide holds every combination of situation, token and haste against a table.
func TestDecide(t *testing.T) {
	type row struct{ none, toFind, given, noneNow, toFindNow, givenNow []Action }
	list := func(a ...Action) []Action { return a }
	lost := row{list(Refuse), list(Enroll), list(Enroll), list(Refuse), list(Enroll), list(Enroll)}
	ended := row{list(Renew), list(Renew, Enroll), list(Enroll, Renew), list(Renew), list(Renew, Enroll), list(Enroll, Renew)}
	inForce := func(a Action) row {
		return row{list(a), list(a), list(a), list(Rotate), list(Rotate), list(Rotate, Enroll)}
	}
	table := map[Situation]row{
		None: lost, KeyOnly: lost, HalfPair: lost, Damaged: lost, KeyAway: lost, Revoked: lost,
		OtherPlatform: lost, OtherInstance: lost, CAMismatch: lost,
		Valid: inForce(Use), NotYetValid: inForce(Use), Expiring: inForce(UseAndRotate),
		Expired: ended, Superseded: ended,
		Inactive: {list(Use), list(Use), list(Enroll), list(Use), list(Use), list(Enroll)},
		CARolled: {
			list(Rotate, Renew), list(Rotate, Renew, Enroll), list(Enroll, Rotate, Renew),
			list(Rotate, Renew), list(Rotate, Renew, Enroll), list(Enroll, Rotate, Renew),
		},
	}
	for s := range situationTexts {
		r, ok := table[s]
		if !ok {
			t.Errorf("%v isn't in the table", s)
		}
		for i, want := range [][]Action{r.none, r.toFind, r.given, r.noneNow, r.toFindNow, r.givenNow} {
			m := Means{Token: []Token{NoToken, TokenToFind, TokenGiven}[i%3], Now: i >= 3}
			t.Run(fmt.Sprintf("%v %+v", s, m), func(t *testing.T) {
				if got := Decide(s, m); !slices.Equal(got, want) {
					t.Errorf("%v, want %v", got, want)
				}
			})
		}
		for i, want := range [][]Action{list(Renew), list(Renew, Enroll), list(Enroll, Renew)} {
			token := []Token{NoToken, TokenToFind, TokenGiven}[i]
			switch s {
			case Valid, Expiring, NotYetValid:
			default:
				want = Decide(s, Means{Token: token}) // it wasn't used in a handshake, or may come back there
			}
			if got := Decide(s, Means{Token: token, Shut: true}); !slices.Equal(got, want) {
				t.Errorf("%v, and shut out: %v, want %v", s, got, want)
			}
		}
		usable := r.none[0] == Use || r.none[0] == UseAndRotate
		if s.Usable() != usable || (s.Hint() == "") != (usable && s != Inactive) {
			t.Errorf("%v: usable %v, hint %q", s, s.Usable(), s.Hint())
		}
	}
	if got := Decide(Situation(99), Means{}); !slices.Equal(got, list(Refuse)) {
		t.Errorf("an unknown situation: %v", got)
	}
	if Refuse.String() != "refuse" || Action(99).String() != "action 99" {
		t.Error("the names of actions")
	}
}

func TestRotateAt(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	end := begin.Add(100 * 24 * time.Hour)
	seen := map[time.Time]bool{}
	for i := range int64(200) {
		at := RotateAt(begin, end, big.NewInt(i))
		if at != RotateAt(begin, end, big.NewInt(i)) {
			t.Error("not the same twice")
		}
		if at.Before(begin.Add(75*24*time.Hour)) || at.After(begin.Add(80*24*time.Hour)) {
			t.Errorf("serial %d: %v", i, at)
		}
		seen[at] = true
	}
	if len(seen) < 190 {
		t.Errorf("%d different times of 200", len(seen))
	}
	if at := RotateAt(begin, begin, big.NewInt(1)); !at.Equal(begin) {
		t.Errorf("a certificate without a lifetime: %v", at)
	}
	for remaining, want := range map[time.Duration]time.Duration{
		-time.Hour: time.Minute, 0: time.Minute, 10 * time.Minute: time.Minute, time.Hour: 3 * time.Minute,
		24 * time.Hour: 72 * time.Minute, 25 * 24 * time.Hour: 6 * time.Hour,
	} {
		if got := RetryIn(end.Add(-remaining), end); got != want {
			t.Errorf("%v remain: %v, want %v", remaining, got, want)
		}
	}
}
