package boot

import (
	"context"
	"time"

	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/identity/anchor"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/secret"
)

// Bootstrap returns what to enroll with of an identity that has all that it takes. A CA that is known by its
// fingerprint alone is got first, as often as patience says; notify, if not nil, is told of each failure
// that is followed by a wait.
func Bootstrap(ctx context.Context, i identity.Identity, patience nodehttp.Backoff, notify func(error, time.Duration)) (enroll.Bootstrap, error) {
	var ca []byte
	err := patience.Run(ctx, notify, func(ctx context.Context) (err error) {
		ca, err = anchor.Of(i).Resolve(ctx)
		return err
	})
	return enroll.Bootstrap{
		PlatformURL: i.PlatformURL, CAPEM: ca, Token: i.Token, InstanceID: i.InstanceID,
		Proxy: secret.New(i.Proxy.Reveal()), LocalClock: i.Clock == identity.ClockLocal,
	}, err
}
