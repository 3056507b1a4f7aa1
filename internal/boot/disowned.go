package boot

import (
	"context"
	"errors"

	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// disowned reports whether the platform has said of credentials that seemed good that they aren't: by a word, which the
// credentials keep, or by ending the handshake, which leaves none.
func (b *boot) disowned(err error) bool {
	if b.credentials == nil || b.persist.ReadOnly {
		return false
	}
	if errors.Is(err, nodehttp.ErrOwnCertificate) {
		return true
	}
	state, err := enroll.Inspect(PKIDir(b.store.Path()), enroll.Wish{}, b.now())
	return err == nil && !state.Situation.Usable()
}

// chooseAnew is choose once more, with credentials made anew in this boot rather than in the next one. It may fall back instead.
func (b *boot) chooseAnew(ctx context.Context, reason error) error {
	b.voice.say("          %v; asking for a new certificate", reason)
	b.credentials, b.reconciler = nil, nil
	if b.shut = errors.Is(reason, nodehttp.ErrOwnCertificate); b.shut {
		b.followCA(ctx)
	}
	defer func() { b.shut = false }()
	b.discovered, b.unidentified = b.resolve(ctx)
	if _, err := b.enroll(ctx); err != nil || b.plan.back.Generation != 0 {
		return err
	}
	return b.bounded(ctx, chooseMost, b.choose)
}

// followCA has a node that isn't let into a handshake ask which CA to trust: it may have missed that the platform's CA
// rolled. What goes wrong is no reason not to go on with what there is.
func (b *boot) followCA(ctx context.Context) {
	keeper := enroll.NewKeeper(enroll.Options{Dir: PKIDir(b.store.Path()), Clock: judge{b}, HTTP: nodehttp.Options{Now: b.now}})
	if err := b.bounded(ctx, enrollMost, keeper.AdoptCA); err != nil {
		b.voice.say("          %v", err)
	}
}
