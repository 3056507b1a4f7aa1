// Package module is the vocabulary of modules: names, versions, the keys under which an OCI image
// carries a module's facts, the module's own description (manifest.yaml), its rank among its
// neighbours and the globs of its specs.
//
// It promises that a Manifest or a Glob that it returns is bounded, complete and free of whatever
// could break out of the place where it will be written (a unit file, a shell word, a path, a log
// line), and that matching a glob takes time in proportion to the pattern's length times the
// path's, whatever either holds. It is pure: it touches no file. It trusts nothing it is given.
//
// # Specs
//
// A spec (mask, file_spec, protected_spec, dependency_spec) is a list of globs, one a line:
//
//	/etc/nginx          that path, and if it is a directory, everything below it
//	/etc/nginx/**       everything below that directory, but not the directory itself
//	/var/log/*.log      * is any run of characters of one path component, even none
//	/srv/file?          ? is one character
//	/srv/[a-c]*         one character of the class; [!a-c] or [^a-c] one that is not in it
//	/usr/**/doc         ** as a whole component is any number of components, even none
//	*.pyc               without a slash in front: at any depth, as if /**/ stood there
//	lost+found/         a slash at the end: only if it is a directory
//	/srv/\*             a backslash takes the next character's meaning away
//
// Whatever a glob matches, it covers with everything below it. A path is matched from the root of
// the module; characters are Unicode code points, and each byte that isn't valid UTF-8 is one of
// its own. Matching follows no symlink and minds the case; a leading dot is an ordinary character.
// There is no negation: a line that starts with "!" is refused, as are empty, "." and ".."
// components, control characters, white space at either end and "**" as a part of a component,
// about which rsync and gitignore disagree.
package module
