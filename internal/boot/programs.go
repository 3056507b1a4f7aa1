package boot

import (
	"context"

	"github.com/powernode/powernode-agent/internal/change"
)

// runPrograms runs what the root image leaves to a program: before anything else runs in the root, since its init may be what
// needs it. A root without is worth more than none.
func (b *boot) runPrograms(ctx context.Context) {
	report, err := change.AtBoot(ctx, b.store, b.rootDir(), b.composition.RootDigest, true) // what is another image's was dropped
	if err != nil {
		b.remark(err.Error(), "")
	}
	for _, s := range report.Steps {
		if s.Error != "" {
			b.remark(s.String(), "run it by hand once the node is up")
			continue
		}
		b.voice.say("          %s, in %d ms", s, s.Millis)
	}
}
