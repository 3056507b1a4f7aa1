// Package tpmkey keeps a node's private key in the machine's TPM 2.0.
//
// # What it promises
//
// A Key signs what a node's certificate is asked to sign, and its private part never leaves the TPM
// that made it: not to this program, not to root, not to another machine. What is kept on the disk
// (PEM) is good for nothing without that TPM, so a disk that was copied or stolen holds no identity.
// No signature is given out that the key's own public part doesn't confirm. Nothing is stored in the
// TPM: every use makes the parent anew, loads the key, signs, and unloads both, so no number of keys
// fills a TPM and a key is forgotten by deleting its file.
//
// # What it trusts
//
// The TPM, and the wires to it: the key has no password (whoever may open the device may sign with
// it while the machine is on), and no measurement of the boot is asked for (docs/decisions/0021). The
// PEM is read as hostile: bounded, and accepted only in the one form that Create makes.
//
// # Forms
//
// The key is ECDSA on P-256 with SHA-256 and with nothing else, for every TPM that a PC may have has
// to know it (TCG PC Client Platform TPM Profile, 4.6). Its attributes are fixedTPM, fixedParent and
// sensitiveDataOrigin: made in the TPM, and never to leave it. noDA, because a key without a password
// has none to guess: that others have locked the TPM by guessing theirs must not cut a node off.
//
// Its parent is the storage root key of the owner's seed: a primary key from the template H-2 of the
// TCG EK Credential Profile (B.4.5) with the attributes of TCG's TPM 2.0 Provisioning Guidance (7.5.1):
// ECC P-256, AES-128 in CFB, empty unique fields. Every TPM makes the same one again from the same
// seed, until the TPM is cleared, which changes the seed and with it ends every key.
//
// The file is a "TSS2 PRIVATE KEY", a TPMKey of the type loadable, as draft-bottomley-tpm2-keys-00
// (James Bottomley, "ASN.1 Specification for TPM 2.0 Key Files") describes it. OpenSSL's TPM provider
// and engine read it too, and the tests have it do so.
package tpmkey
