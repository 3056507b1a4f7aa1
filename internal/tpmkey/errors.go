package tpmkey

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"

	"github.com/google/go-tpm/tpm2"

	"github.com/powernode/powernode-agent/internal/fault"
)

var (
	// ErrAbsent is among the causes of an error where the machine has no TPM 2.0.
	ErrAbsent = errors.New("this machine has no TPM 2.0")
	// ErrForeign is among the causes of an error where the TPM will never load the key: another TPM
	// made it, or this one was cleared since, or the key was damaged. The node needs a new key.
	ErrForeign = errors.New("the key isn't this TPM's: another made it, or this one was cleared since")

	// errPatience ends what takes longer than patience.
	errPatience = errors.New("it didn't answer within a minute")
)

// step is what the TPM was doing.
type step uint8

const (
	stepParent step = iota + 1
	stepCreate
	stepLoad
	stepSign
	stepFlush
)

// stepError is the TPM's own error, and at which step.
type stepError struct {
	step step
	err  error
}

func (e stepError) Error() string { return e.err.Error() }
func (e stepError) Unwrap() error { return e.err }

const (
	hintEnroll  = "enroll the node again with a new token (powernode token create), or give it back the TPM that it enrolled with"
	hintAbsent  = "switch the TPM on in the firmware's settings or attach one, or have the trust policy say node_key: file and enroll again"
	hintOwner   = "take the owner hierarchy's password away (tpm2_changeauth -c owner), or have the trust policy say node_key: file and enroll again"
	hintOff     = "switch the TPM's storage hierarchy on in the firmware's settings"
	hintPower   = "switch the machine off and on; if the TPM then still fails, it needs replacing"
	hintUnknown = "use a TPM that knows ECDSA on P-256, or have the trust policy say node_key: file and enroll again"
	hintBusy    = "see which other program uses the TPM (fuser /dev/tpm0 /dev/tpmrm0)"
)

// remedies are what a person can do about what a TPM answers.
var remedies = []struct {
	codes []tpm2.TPMRC
	// at limits it to these steps; none means any.
	at   []step
	kind fault.Kind
	hint string
	// is is added to the causes.
	is error
}{
	{[]tpm2.TPMRC{tpm2.TPMRCIntegrity, tpm2.TPMRCBinding, tpm2.TPMRCSize, tpm2.TPMRCInsufficient, tpm2.TPMRCValue}, []step{stepLoad}, fault.Refuse, hintEnroll, ErrForeign},
	{[]tpm2.TPMRC{tpm2.TPMRCBadAuth, tpm2.TPMRCAuthFail}, []step{stepParent}, fault.Refuse, hintOwner, errors.New("its owner hierarchy has a password")},
	{[]tpm2.TPMRC{tpm2.TPMRCHierarchy, tpm2.TPMRCDisabled}, nil, fault.Refuse, hintOff, nil},
	{[]tpm2.TPMRC{tpm2.TPMRCInitialize, tpm2.TPMRCFailure, tpm2.TPMRCUpgrade, tpm2.TPMRCReboot, tpm2.TPMRCObjectHandles}, nil, fault.Refuse, hintPower, nil},
	{[]tpm2.TPMRC{tpm2.TPMRCCurve, tpm2.TPMRCScheme, tpm2.TPMRCAsymmetric, tpm2.TPMRCSymmetric, tpm2.TPMRCCommandCode, badTag}, nil, fault.Refuse, hintUnknown, nil},
	// Keys of ours aren't subject to it, but some TPMs are thorough.
	{[]tpm2.TPMRC{tpm2.TPMRCLockout}, nil, fault.Retry, "wait until the TPM's lockout is over (tpm2_getcap properties-variable says how long), or end it (tpm2_dictionarylockout --clear-lockout)", nil},
}

// badTag is what a TPM 1.2 answers (TPM_BADTAG of TPM Main, part 2).
const badTag tpm2.TPMRC = 0x1E

// explain makes a fault of what went wrong while doing something with the TPM at path. nil stays nil.
func explain(doing, path string, err error) error {
	if err == nil {
		return nil
	}
	at := step(0)
	if e, ok := errors.AsType[stepError](err); ok {
		at = e.step
	}
	for _, r := range remedies {
		if len(r.at) > 0 && !slices.Contains(r.at, at) || !slices.ContainsFunc(r.codes, func(c tpm2.TPMRC) bool { return errors.Is(err, c) }) {
			continue
		}
		if r.is != nil {
			return fault.New(r.kind, fault.General, r.hint, "%s in the TPM %s: %w (%w)", doing, path, r.is, err)
		}
		return fault.New(r.kind, fault.General, r.hint, "%s in the TPM %s: %w", doing, path, err)
	}
	if code, ok := errors.AsType[tpm2.TPMRC](err); ok && code.IsWarning() {
		return fault.New(fault.Retry, fault.General, hintBusy, "%s in the TPM %s: %w", doing, path, err)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s in the TPM %s: %w", doing, path, err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO):
		return fault.New(fault.Refuse, fault.General, hintAbsent, "%s in the TPM %s: %w (%w)", doing, path, ErrAbsent, err)
	case errors.Is(err, fs.ErrPermission):
		return fault.New(fault.Refuse, fault.General, "run it as root", "%s in the TPM %s: %w", doing, path, err)
	case errors.Is(err, syscall.EBUSY):
		return fault.New(fault.Retry, fault.General, hintBusy, "%s in the TPM %s: %w", doing, path, err)
	default:
		return fault.New(fault.Retry, fault.General, hintPower, "%s in the TPM %s: %w", doing, path, err)
	}
}

// broken is a fault of damaged data or of a caller.
func broken(format string, err error) error {
	return fault.New(fault.Broken, fault.General, hintEnroll, format, err)
}
