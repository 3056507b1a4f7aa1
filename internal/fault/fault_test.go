package fault

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestOutermostKindAndAreaFirstHint(t *testing.T) {
	inner := New(Retry, Platform, "check the network", "get modules: %w", io.ErrUnexpectedEOF)
	outer := New(Refuse, Policy, "", "boot: %w", inner)
	wrapped := fmt.Errorf("node n1: %w", outer)
	for _, c := range []struct {
		err  error
		kind Kind
		area Area
		hint string
		text string
	}{
		{inner, Retry, Platform, "check the network", "get modules: unexpected EOF"},
		{outer, Refuse, Policy, "check the network", "boot: get modules: unexpected EOF"},
		{wrapped, Refuse, Policy, "check the network", "node n1: boot: get modules: unexpected EOF"},
		{errors.Join(errors.New("a"), inner), Retry, Platform, "check the network", "a\nget modules: unexpected EOF"},
		{io.EOF, Broken, General, "", "EOF"},
		{nil, Broken, General, "", ""},
	} {
		if KindOf(c.err) != c.kind || AreaOf(c.err) != c.area || HintOf(c.err) != c.hint {
			t.Errorf("%v: %v, area %d, hint %q", c.err, KindOf(c.err), AreaOf(c.err), HintOf(c.err))
		}
		if c.err != nil && c.err.Error() != c.text {
			t.Errorf("text %q, want %q", c.err.Error(), c.text)
		}
	}
	if !errors.Is(wrapped, io.ErrUnexpectedEOF) {
		t.Error("the cause is lost")
	}
}

func TestKindNames(t *testing.T) {
	if Broken.String() != "broken" || Retry.String() != "retry" || Refuse.String() != "refuse" {
		t.Error("a kind has another name than documented")
	}
}
