// Package change changes what a node runs: it finds out which modules are wanted, makes a generation of them, says
// what that would do, and does it: live, beneath the running system, or at the next boot.
//
// It promises that
//   - a dry run changes nothing: not the store, not what is mounted, not what the platform knows;
//   - a module that can't be used stays at the version that runs, or out, with the reason, and keeps no other back;
//   - nothing is taken from the node by an answer that isn't one, and no module goes below the highest version that was
//     ever current here, unless somebody said that this is meant;
//   - what fails, or is killed, at any step leaves the generation that ran before mounted and current, or the new one,
//     whole; Recover, which every change begins with, brings an unfinished one to its end.
//
// # Order of a live change
//
//	look at each module's signature, pull, prove, compose; root image and record in the store: nothing names them
//	the plan: what differs, what is in the way, what has to follow
//	the journal of the change; the swap of the mounts (its own journal); what the change calls for in the system
//	the administrator's word (local.json), the mark of having gone live, the pointer "current"
//	the facts of the boot, the journal away
//
// A generation that went live isn't known to boot: the next boot tries it, with what was booted before as the way
// back. A change that isn't live is staged, with the reason in the plan.
//
// # What a dry run knows
//
// A plan needs the file tree of every module. Those of modules that aren't in the store are read from the registry as a pull
// would, checked against their seals and forgotten: nothing is written, and the bytes are those that the pull will take
// once more. So a dry run says the same as the change itself would.
//
// It trusts the packages below for their parts, and its caller for what of the machine it is told.
package change
