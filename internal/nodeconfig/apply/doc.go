// Package apply brings a machine to what its platform tells beside the modules: authorized keys, host name,
// entries of /etc/hosts.
//
// It promises that what is right already isn't written: neither contents, nor times, nor inodes change. What is
// written goes in one step, from a temporary file in the same directory to the disk and then to its name, so
// that a reader, or a power cut, finds the old file or the new one.
//
// Of a machine it trusts what root owns: its file system down to /etc, and /etc/passwd. It doesn't trust the users
// whose homes it writes in. There it works with the user's own identity, so that the kernel lets it do what the user
// could do, and nothing else; it follows no link that isn't root's, opens nothing that isn't a regular file or a
// directory of the user's or root's, and reads no more than a bound. Whatever a user swaps meanwhile, nothing outside
// of what is theirs is read or written.
package apply
