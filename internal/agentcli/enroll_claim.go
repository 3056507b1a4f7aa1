package agentcli

import (
	"context"
	"fmt"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/identity/claim"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// claimed returns a way to find out what to enroll with that has the machine claimed where discover finds no token. It waits for the operator for
// as long as it takes.
func (f *enrollFlags) claimed(app *cli.App, o *enroll.Options, discover func(context.Context) (enroll.Bootstrap, error)) func(context.Context) (enroll.Bootstrap, error) {
	return func(ctx context.Context) (enroll.Bootstrap, error) {
		b, err := discover(ctx)
		if err != nil || !b.Token.IsZero() {
			return b, err
		}
		machine := claim.Look("", "")
		machine.AgentVersion, machine.Architecture = o.AgentVersion, o.Architecture
		got, err := claim.Run(ctx, claim.Options{
			Dir: boot.ClaimDir(f.stateDir), PlatformURL: b.PlatformURL, InstanceID: b.InstanceID, Machine: machine,
			Connect: func(ctx context.Context) (*nodehttp.Conn, error) { return enroll.Connect(ctx, *o, b) },
			Show: func(s claim.Sign) {
				if app.Getenv("TERM") != "dumb" {
					for _, l := range s.Draw(claim.SizeOf(app.Err)) {
						fmt.Fprintln(app.Err, l)
					}
				}
				for _, l := range s.Lines() {
					fmt.Fprintln(app.Err, l)
				}
			},
			Say:     func(format string, args ...any) { fmt.Fprintln(app.Err, cli.Printable(fmt.Sprintf(format, args...))) },
			Backoff: nodehttp.Backoff{First: time.Second, Max: time.Minute},
		})
		if err != nil {
			return b, err
		}
		b.PlatformURL, b.InstanceID, b.Token = got.PlatformURL, got.InstanceID, got.Token
		return b, nil
	}
}
