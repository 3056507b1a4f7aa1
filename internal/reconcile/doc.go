// Package reconcile takes a node from the platform's list of modules to a proven, composed
// generation in its store. A boot and a running node do it in the same way.
//
// It promises that what it calls proven was proven in this very run by package assemble, that a
// module which can't be had is named and keeps no other from being fetched, and that nothing which
// runs, or is a way back, is taken away: what is damaged is replaced in one step by what was
// fetched and checked anew, or stays as it is.
//
// It trusts the platform for the list, the trust policy for everything that is in it, and
// its caller to be the only one at work on the store.
package reconcile
