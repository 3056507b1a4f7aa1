// Package nodeconfig judges what a platform tells of a node beside its modules: authorized keys, host
// name, entries of /etc/hosts. Package apply, below it, brings a node to that.
//
// It promises that nothing passes that the program which reads it would misread: a key is one that
// sshd(8) accepts, structure and options included; a name is one by RFC 1123; no value holds a line of its
// own. It promises that Merge keeps what stands outside of the platform's block byte for byte, and refuses
// a file in which that block can't be told for sure. It has no effects, and trusts nothing.
//
// Platform and agent share it: a platform refuses what a node would refuse.
package nodeconfig
