// Package ociimage moves modules between OCI registries, OCI image layouts and this project's own
// types: it finds an image, its signatures and its layers, reads them into a tree, seals trees,
// and writes and pushes images and signatures.
//
// It promises that every byte it hands out as a manifest, a config, a layer or a signature agrees
// in size and sha256 with the descriptor that named it, down from the digest that the caller
// gave; that what a registry sends is bounded before it is read; and that an interrupted download
// goes on where it stopped. It does not judge signatures and does not compare seals: a caller that
// pulls before it verified the manifest feeds bytes that nobody vouched for to decoders, which
// are built to withstand that.
//
// It trusts no registry and no layout. TLS is always on, except towards loopback addresses where
// Options.PlainHTTP asks for it; a redirect or token service can't take that back.
//
// # Pull and resume
//
// A layer is one pass: compressed bytes are hashed, decompressed, hashed, split into objects and
// hashed for fs-verity as they arrive, and beside that appended to a Partial. When a connection
// breaks, the reader asks for the rest with a Range request and whoever reads doesn't notice.
// When the process breaks, the next Pull reads the Partial as the head of the same stream, so that
// its bytes are hashed once, by that pass. If the sum is wrong and the head came from a Partial,
// the layer is read once more, from the registry alone.
//
// This package is the only one that knows the OCI client library.
package ociimage
