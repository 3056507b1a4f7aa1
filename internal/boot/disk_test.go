package boot

import (
	"io"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/bootconfig"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/persist"
)

// TestTheTokenIsSpared: a disk that comes late finds its node's certificate still good.
func TestTheTokenIsSpared(t *testing.T) {
	for name, c := range map[string]struct {
		kind, setting string
		once          bool
		refused       int
	}{
		"no disk":                       {kind: persist.Memory, refused: diskChances},
		"a disk":                        {kind: persist.Disk},
		"memory was asked for":          {kind: persist.Memory, setting: bootconfig.Memory},
		"nobody would try it again":     {kind: persist.Memory, once: true},
		"a directory instead of a disk": {kind: "directory"},
	} {
		m, _ := fakeMachine(io.Discard)
		m.persist.Kind, m.settings.Persist = c.kind, c.setting
		m.triesAgain = m.triesAgain && !c.once
		refused := 0
		for range 2 * diskChances {
			if err := m.spareToken(); err != nil {
				refused++
				if fault.KindOf(err) != fault.Retry || fault.HintOf(err) == "" {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		if refused != c.refused {
			t.Errorf("%s: refused %d times", name, refused)
		}
	}
}

// TestANamedDiskHasToBeThere: memory doesn't take the place of one that somebody named.
func TestANamedDiskHasToBeThere(t *testing.T) {
	for setting, must := range map[string]bool{"": false, bootconfig.Memory: false, "LABEL=powernode": true, "/dev/vda": true} {
		b := newBoot(Config{Now: time.Now, Console: io.Discard})
		b.settings.Persist = setting
		if o, err := b.persistOptions(); err != nil || o.Must != must || o.Memory != (setting == bootconfig.Memory) {
			t.Errorf("%q: %+v, %v", setting, o, err)
		}
	}
}
