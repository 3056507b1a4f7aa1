package nodeapitest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// TestPlatformRestoredFromABackup: the platform's database comes back from before a rotation. The node asks to renew the
// certificate that the platform has lost, and is back once an operator has approved that.
func TestPlatformRestoredFromABackup(t *testing.T) {
	p := platformtest.Start(t)
	l := newLiving(t, p, "web-1")
	p.Stop()
	backup := map[string][]byte{}
	names, err := filepath.Glob(filepath.Join(p.Dir, "platform.db*"))
	l.ok(err)
	for _, name := range names {
		backup[name], err = os.ReadFile(name)
		l.ok(err)
	}
	p = p.Restart()
	p.Clock.Advance(time.Minute)
	l.ok(l.keeper.Rotate(t.Context()))
	l.ok(l.beat())
	p.Stop()
	names, err = filepath.Glob(filepath.Join(p.Dir, "platform.db*"))
	l.ok(err)
	for _, name := range names {
		l.ok(os.Remove(name))
	}
	for name, data := range backup {
		l.ok(os.WriteFile(name, data, 0o600))
	}
	p = p.Restart()
	l.restart(nil)
	if err := l.beat(); nodehttp.CodeOf(err) != nodeapi.CodeCertificateSuperseded {
		t.Fatal(err)
	}
	if got := l.status().Situation; got != enroll.Superseded {
		t.Errorf("%v", got)
	}
	if err := l.keeper.Renew(t.Context()); enroll.AsWaiting(err) == nil {
		t.Fatal(err)
	}
	if _, err := p.Operator.ApproveNode(t.Context(), "web-1", operatorapi.ApproveRequest{}); err != nil {
		t.Fatal(err)
	}
	l.ok(l.keeper.Renew(t.Context()))
	l.ok(l.beat())
}
