package enroll

import (
	"context"

	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// Connect returns a connection to b's platform that is judged as that of an enrollment with the settings o: by the platform's signed time, unless
// b says otherwise. It makes one attempt to learn that time; an error of kind fault.Retry says that another may succeed.
func Connect(ctx context.Context, o Options, b Bootstrap) (*nodehttp.Conn, error) {
	o = o.filled()
	o.Backoff, o.Notify = nodehttp.Backoff{Tries: 1}, nil
	base, err := b.base()
	if err != nil {
		return nil, err
	}
	m := base.stranger()
	if err := o.askTime(ctx, m, b.LocalClock); err != nil {
		return nil, err
	}
	if err := o.online(ctx); err != nil {
		return nil, err
	}
	return nodehttp.New(m, o.http())
}
