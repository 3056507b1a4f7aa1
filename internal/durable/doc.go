// Package durable writes files so that a power cut at any instruction leaves either the old state
// or the new one.
//
// It promises that a call that returned nil has put its result on the disk: data, then name, then
// the directory that holds the name. A call that failed has left what was there before; the worst
// that a kill leaves behind is a temporary file, which Sweep removes.
//
// Every operation on the disk carries a label, "what:step" ("credentials:rename"). A test gives
// the directory a Hook, which sees each label before the operation happens and can fail it or
// kill the process there; package durabletest does so at every label in turn.
//
// It trusts the directory it was given: names are single path elements, and symbolic links at
// the end of a path are refused, but whoever may write the directory may remove what is in it.
package durable
