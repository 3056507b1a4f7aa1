package agentcli

import (
	"context"
	"log/slog"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/runtime"
)

// unfinished is what the service does about live changes whose command was killed: it brings them to their end, and takes
// one back that waits in vain for the platform.
type unfinished struct {
	stateDir string
	log      *slog.Logger
}

func (u unfinished) loop() runtime.Loop {
	return runtime.Chore{Name: "finish what a live change has left", Do: u.look, Every: 2 * time.Second, Log: u.log}
}

// look does nothing while nothing is left, and while a command is at work: that has the lock, and does the same.
func (u unfinished) look(ctx context.Context) (bool, error) {
	p, waits, err := change.Waiting(boot.RunDir)
	if err != nil || !waits && !change.Unfinished(boot.RunDir) {
		return false, err
	}
	st, unlock, err := openLocked(u.stateDir)
	if fault.KindOf(err) == fault.Retry {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unlock()
	trust, err := boot.LoadTrust(boot.TrustPath)
	if err != nil {
		return false, err
	}
	c, closing, err := newChanger(st, trust, false, nil)
	if err != nil {
		return false, err
	}
	defer closing()
	text, err := c.Recover(ctx)
	if text != "" {
		u.log.Warn(text)
	}
	if err != nil || !waits {
		return false, err
	}
	var r change.Result
	if p.Left > 0 {
		err = c.AskOnce(ctx)
	} else {
		err = c.AwaitConfirmation(ctx, &r)
	}
	for _, text := range r.Remarks {
		u.log.Warn(text)
	}
	return false, err
}
