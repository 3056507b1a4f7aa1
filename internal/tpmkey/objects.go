package tpmkey

import (
	"errors"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// storageRoot is the template of the parent; the package documentation names its source.
func storageRoot() tpm2.TPMTPublic {
	t := tpm2.ECCSRKTemplate
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	return t
}

// template is what a node's key is made from, and what one that is loaded must be.
func template() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			CurveID: tpm2.TPMECCNistP256,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
	}
}

// withParent makes the parent, works with it, and unloads it.
func withParent[T any](t transport.TPM, work func(parent tpm2.NamedHandle) (T, error)) (value T, err error) {
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(storageRoot())}.Execute(t)
	if err != nil {
		return value, stepError{stepParent, err}
	}
	defer func() { err = errors.Join(err, flush(t, made.ObjectHandle)) }()
	return work(tpm2.NamedHandle{Handle: made.ObjectHandle, Name: made.Name})
}

// create makes a key beneath the parent, and returns its public and private areas as TPM2B_PUBLIC and
// TPM2B_PRIVATE. It isn't loaded.
func create(t transport.TPM) (material, error) {
	return withParent(t, func(parent tpm2.NamedHandle) (material, error) {
		made, err := tpm2.Create{ParentHandle: parent, InPublic: tpm2.New2B(template())}.Execute(t)
		if err != nil {
			return material{}, stepError{stepCreate, err}
		}
		return material{public: tpm2.Marshal(made.OutPublic), private: tpm2.Marshal(made.OutPrivate)}, nil
	})
}

// withKey loads a key, works with it, and unloads it and its parent.
func withKey[T any](t transport.TPM, m material, work func(key tpm2.NamedHandle) (T, error)) (T, error) {
	return withParent(t, func(parent tpm2.NamedHandle) (value T, err error) {
		loaded, err := tpm2.Load{
			ParentHandle: parent,
			InPrivate:    tpm2.TPM2BPrivate{Buffer: m.private[2:]},
			InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](m.public[2:]),
		}.Execute(t)
		if err != nil {
			return value, stepError{stepLoad, err}
		}
		defer func() { err = errors.Join(err, flush(t, loaded.ObjectHandle)) }()
		return work(tpm2.NamedHandle{Handle: loaded.ObjectHandle, Name: loaded.Name})
	})
}

// sign has the TPM sign a SHA-256 digest, and returns r and s, big endian.
func sign(t transport.TPM, m material, digest []byte) (signature, error) {
	return withKey(t, m, func(key tpm2.NamedHandle) (signature, error) {
		signed, err := tpm2.Sign{
			KeyHandle: key, Digest: tpm2.TPM2BDigest{Buffer: digest},
			// The key isn't restricted, so nothing has to show where the digest is from.
			Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck},
		}.Execute(t)
		if err != nil {
			return signature{}, stepError{stepSign, err}
		}
		ecdsa, err := signed.Signature.Signature.ECDSA()
		if err != nil {
			return signature{}, stepError{stepSign, err}
		}
		return signature{r: ecdsa.SignatureR.Buffer, s: ecdsa.SignatureS.Buffer}, nil
	})
}

// flush unloads an object. Where no resource manager does it at the end, one that stays takes a place
// until the machine is switched off.
func flush(t transport.TPM, handle tpm2.TPMHandle) error {
	if _, err := (tpm2.FlushContext{FlushHandle: handle}).Execute(t); err != nil {
		return stepError{stepFlush, err}
	}
	return nil
}
