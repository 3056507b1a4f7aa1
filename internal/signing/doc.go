// Package signing makes what a publisher adds to a module: keys and signatures.
//
// It promises that the key files that it writes are cosign's own, so that either program reads
// the other's; that a private key leaves memory only sealed under a password (an empty one is
// allowed, as with cosign, and protects nothing); and that the signatures of an image manifest
// come in both forms that cosign attaches, a Sigstore bundle and the older "simple signing"
// payload, over the same digest. The same key and digest give the same bytes, so that publishing
// again adds nothing to a registry.
//
// It does not decide what is worth signing, speaks to no network and writes no file. It is apart
// from package signature so that a program that signs needs none of the verifier's libraries.
// It trusts its caller with the digest, and the system's random numbers.
package signing
