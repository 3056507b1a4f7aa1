// Package store keeps what a node has: objects by fs-verity digest, modules, generations, and
// downloads that were interrupted.
//
//	objects/xx/yyyy…    contents and images, mode 0400, named by fs-verity digest as composefs does
//	modules/<sha256>/   one directory per module: record, OCI manifest, config, bundles, object list
//	generations/<n>.json, the trials <n>.trial, and the pointers current, previous and staged
//	partial/<sha256>    compressed blobs that are not complete yet
//	unsynced/           one marker per handle that has linked objects since its last sync
//
// # What it promises
//
// A module that GetModule or ListModules returns is complete: every object it lists was on the
// disk before its record was. A generation's record appears after its root image and refers only
// to modules that are here. Records are immutable, carry a checksum, and are read strictly; a
// truncated or damaged one is an error of kind fault.Broken that names the file, and hides no other.
//
// # Crash safety of objects
//
// An object is written to an unnamed file and linked under its digest once its bytes are complete,
// so a kill never leaves part of one. It isn't synced by itself: an fsync for each of 40,000
// objects would take minutes. After a power cut an object may therefore be there with its name but
// without its bytes. Three rules keep such an object from being used:
//
//  1. A handle puts a marker into unsynced/, durably, before it links its first object, and
//     removes it only when a syncfs that began after its last link has succeeded, or where that is
//     one object alone, as a new root image is, an fsync of that one.
//  2. A commit record (module or generation) is written after such a syncfs. Objects that a record
//     lists are therefore whole. A generation needs none where its image was put on the disk by
//     itself (SyncObject): all else that it refers to has records.
//  3. Open, when it finds a marker and no other handle is at work, checks every object that no
//     record lists and removes those whose bytes don't match their name; then it removes the markers.
//
// When the syncfs itself fails, the objects linked since the last good one are removed at once:
// the kernel may have dropped their bytes, and the page cache would hide that from a check.
//
// fs-verity is enabled in Sync, after the syncfs: the kernel flushes a file when it enables it, and
// one at a time that would be an fsync each. PutModule and PutGeneration make sure that every object
// they refer to has it, older ones too, before they write the record.
//
// # Handles and locks
//
// A Store is a handle for one piece of work (a boot, a reconcile cycle, a command). From its first
// object on it holds store.lock shared, which keeps Collect of other handles from removing objects
// that no record lists yet. Locks end with their process.
//
// It trusts whoever can write its directory, which only root should; and it trusts the caller that
// a module is what its signature says. It doesn't judge content: an object is only ever the bytes
// of its digest.
package store
