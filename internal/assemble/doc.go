// Package assemble turns a list of modules into a proven generation: it fetches what is missing,
// proves every module from the store, and composes them.
//
// It promises that a generation that it returns was proven in this very run, whatever the store
// said before: for each module the signature under the trust policy, the seal over the tree and
// the bytes of every object; and for the root image that it is the composition of those trees.
// A signature is checked before the first layer is asked for, so that sizes come from a manifest
// that somebody trusted has signed.
//
// It trusts its caller for the list of modules and their order, and the trust policy. It trusts
// neither the registry nor what lies on the disk.
package assemble
