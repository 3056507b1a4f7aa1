// Package layer turns OCI image layers (tar, tar+gzip, tar+zstd) into a file tree, and a file tree
// into a layer.
//
// Reading promises that nothing is written anywhere but into the Sink: contents of more than
// tree.InlineMax bytes go there while the layer streams, everything else becomes tree.Node data.
// Each byte is read once; the compressed digest, the uncompressed one (DiffID) and the fs-verity
// digests are computed as it passes. A tree comes back only if every digest and size agreed.
//
// It trusts nothing in the stream: compression, sizes, entry count, names, link targets, device
// nodes and extended attributes are checked against Limits and the rules below, and the first
// entry that breaks one ends the reading with an error that names it. What was committed to the
// Sink until then stays there, unreferenced.
//
// # Rules for entries
//
//   - Names are relative. "." and empty components are dropped ("./usr//bin/" is usr/bin); an
//     absolute name, "..", a component over 255 bytes or a path over 4095 is refused. Only a
//     directory may be the root or end in a slash.
//   - A parent that no layer named becomes a directory 0755 of root at the epoch. A parent that is
//     not a directory is refused, a symlink too: no name is ever resolved through one.
//   - Hard links name an earlier non-directory of the same or a lower layer, and share its inode.
//   - Device nodes are refused unless Limits.Devices; character device 0:0, overlayfs's whiteout,
//     always. Sparse files, ACLs and labels in the form of star and GNU tar, multi-volume and
//     unknown entry types are refused: leaving them out silently would give another tree.
//   - Extended attributes (SCHILY.xattr.*): see AllowedXattr.
//   - The same name twice in a layer: the last one wins, as in tar, unless a directory that this
//     layer filled would be replaced by something else.
//
// # Rules for merging
//
// The OCI image specification's: ".wh.NAME" hides NAME of the layers below, ".wh..wh..opq" all
// entries of its directory in the layers below, wherever in the layer they stand. A directory over
// a directory takes the upper one's metadata and keeps the lower one's entries; in any other case
// the upper replaces the lower. A whiteout after a real entry of the same name in one layer is
// refused, since extractors disagree about it.
package layer
