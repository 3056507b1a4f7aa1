// Package retain decides what of a node's past stays: which generations are kept and why, what goes with those that
// aren't (modules, objects, old downloads), whether there is room for a pull, how low a module's version may go, and
// what a rollback goes back to.
//
// It promises that a collection never takes what runs (in any mount namespace), what boots next, what the node would
// go back to, what a person pinned, or what another process is putting into the store meanwhile; where a
// record that would tell is damaged, nothing is removed at all. A kill or a power cut at any moment leaves a store in
// which every generation that is left is whole, and the next collection ends what this one began. Decisions are
// functions of their input alone; effects come after them.
//
// It trusts the store's records, and the kernel's mount tables for what runs. A process that has only its working
// directory in a root that was taken off the mount tree isn't seen: such a root is safe as long as its
// generation is kept, as the newest ones are.
package retain
