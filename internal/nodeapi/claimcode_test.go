package nodeapi

import (
	"strings"
	"testing"
)

func TestClaimCode(t *testing.T) {
	if len(ClaimAlphabet) != 30 || strings.ContainsAny(ClaimAlphabet, "ILO015") {
		t.Errorf("alphabet %s", ClaimAlphabet)
	}
	for typed, want := range map[string]string{
		"ABCDEFGH": "ABCDEFGH", "abcd-efgh": "ABCDEFGH", " ab cd-ef gh ": "ABCDEFGH", "2346789z": "2346789Z",
		"ABCDEFG": "", "ABCDEFGHJ": "", "ABCDEFG0": "", "ABCDEFGI": "", "": "", "ABCD_EFGH": "", "ÄBCDEFGH": "", "ſBCDEFGH": "",
		strings.Repeat("-", 1000) + "ABCDEFGH": "",
	} {
		got, ok := ParseClaimCode(typed)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %v; want %q", typed, got, ok, want)
		}
	}
	if got := ShowClaimCode("ABCDEFGH"); got != "ABCD-EFGH" {
		t.Error(got)
	}
	if got := ShowClaimCode("x"); got != "x" {
		t.Error(got)
	}
}

func FuzzParseClaimCode(f *testing.F) {
	f.Add("abcd-efgh")
	f.Fuzz(func(t *testing.T, s string) {
		code, ok := ParseClaimCode(s)
		if !ok {
			return
		}
		if again, ok := ParseClaimCode(ShowClaimCode(code)); !ok || again != code {
			t.Fatalf("%q gives %q, and that %q", s, code, again)
		}
	})
}
