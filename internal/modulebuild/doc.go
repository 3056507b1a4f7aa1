// Package modulebuild makes modules: OCI images with one layer, from Debian packages or from a
// directory.
//
// It promises that the same inputs give the same tree, and so the same seal: the same manifest,
// version and epoch, with the same package versions in the archive or the same files in the
// directory. What belongs to the machine that built it stays out (its name, resolver, mirrors,
// keys, identifiers, logs, caches, clock). It signs and seals nothing: that is publishing.
//
// # Trust
//
// The package archive is trusted as far as apt's keys do. A base is the operator's own choice: its
// digests are checked, its signatures are not, so name what you built or verified. Its programs,
// such as its dpkg, become a part of the build, and the module is what they make of it. They are
// kept from the machine that builds, though:
//
//   - a base in which a symlink or the like lies where the builder makes, mounts, writes or reads
//     something is refused (see checkPlaces), and so is what the packages made;
//   - apt runs outside, with its state there, and touches nothing in the base;
//   - the base's dpkg, its systemd-sysusers and the maintainer scripts run as root with the
//     base's root as their only file system, without a network or a terminal, with a read-only
//     /proc, few capabilities (see giveUp) and no_new_privs.
//
// This is no virtual machine: they share its kernel, without a seccomp filter or limits of memory
// and disk, and apt, with all rights, parses what the base's dpkg status says. A whole system,
// without a base, is mmdebstrap's work: the maintainer scripts, which are the archive's, run in a
// chroot and may mount there.
//
// # Three ways
//
// Without a base and with a package_spec, a whole system is made with mmdebstrap: the essential
// packages and those named. With a base, the packages are installed by apt and dpkg into an
// overlay over the base's tree, and what the overlay caught becomes the module: the files of
// every package that the base lacks, with what their maintainer scripts made of them. From a
// directory, the files are taken as they lie there. Then, for all three:
//
//   - the manifest's mask takes paths out, its file_spec, if there is one, all that it doesn't
//     cover, except for the directories above;
//   - times later than the epoch become the epoch; package builds without a given epoch take the
//     newest time in the packages themselves;
//   - files from a directory belong to root, with modes 0755 or 0644 and the epoch as their time,
//     because a checkout knows no more than that; KeepAttributes keeps what is there;
//   - the manifest goes to usr/lib/powernode/modules/NAME/manifest.yaml.
//
// # What modules can't share
//
// Some files of a Debian system have all packages' facts in them. If two modules each brought
// their own, one would win and the other's facts be lost. So a module over a base has instead:
//
//   - of /etc/passwd, group, shadow and gshadow: lines in usr/lib/sysusers.d/powernode-NAME.conf
//     for the users and groups that its packages added, with the numbers that its files have;
//   - of /var/lib/dpkg/status: one file for each package in /var/lib/dpkg/status.d, where image
//     scanners look, and from which this package rebuilds the status of a base of several modules;
//   - of /etc/ld.so.cache: nothing. The loader looks into its default directories without it, and
//     ldconfig may write it on the node.
//
// /var is the node's persistent state: what a module has there is what a new node begins with.
// What packages removed from the base can't be a part of a module; Result.Removed lists it, and
// the mask of the manifest can hide it.
package modulebuild
