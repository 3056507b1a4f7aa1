// Package difference says what differs between two file trees: the root image that runs and the
// one that shall.
//
// It promises that whoever changes every path that it lists, and no other, turns the first tree into the
// second, down to times, xattrs and which names are one file. It is pure, looks at names and nodes
// only, and takes memory for what differs, not for what is equal, but for one map of the files (to find
// hard links). It trusts both trees to be canonical: read from a sealed image, or composed.
package difference
