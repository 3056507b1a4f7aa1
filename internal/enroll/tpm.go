package enroll

import (
	"context"
	"crypto"
	"errors"

	"github.com/powernode/powernode-agent/internal/tpmkey"
)

// TPMAt returns the TPM at a device; "" is the machine's first.
func TPMAt(device string) TPM { return realTPM{device} }

type realTPM struct{ device string }

func (t realTPM) Present() bool { return tpmkey.Present(t.device) }

func (t realTPM) Create(ctx context.Context) (crypto.Signer, []byte, error) {
	key, err := tpmkey.Create(ctx, t.device)
	if err != nil {
		return nil, nil, err
	}
	return key, key.PEM(), nil
}

func (t realTPM) Load(text []byte) (crypto.Signer, error) {
	key, err := tpmkey.Load(t.device, text)
	if err != nil {
		return nil, err
	}
	return key, nil
}

func (t realTPM) Check(ctx context.Context, key crypto.Signer) error {
	k, ok := key.(*tpmkey.Key)
	if !ok {
		return errors.New("the key isn't one of a TPM")
	}
	return k.Check(ctx)
}
