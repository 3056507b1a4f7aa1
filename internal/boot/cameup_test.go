package boot

import (
	"testing"
	"time"
)

// TestDiedEarly: only a system that was handed over to and never came as far as the service is doubted.
func TestDiedEarly(t *testing.T) {
	dir := t.TempDir()
	boot := func(id string, outcome Outcome) {
		t.Helper()
		j := &journal{doc: Journal{BootID: id, Outcome: outcome}, clock: func() time.Duration { return 0 }}
		defer j.close()
		if err := j.open(dir); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what, id string, died bool) {
		t.Helper()
		if got := diedEarly(dir, id); got != died {
			t.Errorf("%s: %t, want %t", what, got, died)
		}
	}
	want("nothing has booted", "1", false)
	boot("1", HandedOver)
	want("the boot itself", "1", false)
	want("no word of the last one", "2", true)
	if err := CameUp(dir, "1"); err != nil {
		t.Fatal(err)
	}
	want("the last one came up", "2", false)
	boot("2", HandedOver)
	want("an older one came up", "3", true)
	boot("3", UnderWay)
	want("the last one was cut off before it handed over", "4", false)
}
