// Package aftercare is what a running system needs when its root changes beneath it: users, the linker's cache,
// temporary files, the index of kernel modules, the units of systemd, and word of the processes that go on with
// what was replaced.
//
// It promises that
//   - nothing is done that the changed files don't call for, and each unit is touched once;
//   - what would take the machine out of its administrator's hands is never restarted: the plan says so instead;
//   - Decide, which makes the plan, is pure: it says before a change what will be done after it;
//   - programs are run without a shell, for a bounded time, and what they say is bounded, too; one that fails
//     keeps nothing else from being done.
//
// # The order
//
// Before the swap, while their files are there: the units that go away are stopped. After it:
//
//	ldconfig                the programs that follow may be linked against what came
//	systemd-sysusers        the users that files and services are to belong to
//	systemd-tmpfiles        the places that services write to
//	depmod                  the kernel modules that they ask for
//	daemon-reload           the units
//	reload, restart, start  in this order: the message bus reads its rules before who needs them is started
//
// # What it writes
//
// The programs write into the writable layer of the running system, and so does an administrator. Derived names
// what of it says nothing that the image doesn't: /etc/ld.so.cache and the index files of /lib/modules. Kept over
// another root image they would hide its own and tell of files that aren't there, so they are no local changes: they
// are never a conflict, never part of a module that is made of local changes, and have to be removed before a root is made over
// a kept layer. To keep them rare, ldconfig runs only where the loader doesn't find a library in the directories that it looks
// into by itself, and depmod only where the image brings no index that lists what it has. Such an image needs both
// whenever it is made a root, or the same generation would be another one after a boot: AtBoot says so.
//
// Users that systemd-sysusers makes are local changes, as they are at a boot: their numbers differ from node to
// node unless the module gives them.
//
// It trusts its caller for the trees and their contents, which were proven, and systemd.
package aftercare
