// Package desired says which modules a node is to run: the platform's list, and what the node's
// administrator attached and detached here, which outlasts updates and restarts.
//
// It promises that nothing is taken from a node by an answer that isn't one: an empty list, or one that lacks more than
// half of what runs without saying that this is meant. The decisions are pure; the administrator's word is one file,
// written durably and read strictly, and where it can't be read nothing is decided.
//
// It trusts the file's directory, which only root can write; what the file names has to pass the trust policy
// like any module of the platform's.
package desired
