// Package compose makes one file tree out of several modules' trees, and says what it decided.
//
// It promises that the result depends on nothing but the inputs, not on their order: whoever
// composes the same modules, node or platform, gets the same tree and so the same root digest.
// Each name in the result comes from exactly one module. It reads no file and modifies no input.
// It trusts the inputs' trees to be what package layer lets through and judges their specs.
//
// # Rules
//
// The higher effective priority wins; among equals the smaller name in byte order. Walking from
// the root, of several modules that have the same path:
//
//   - Directories merge. Mode, owner, times and xattrs are those of the winning module that has
//     the directory. Differences (but for times) are reported.
//   - Anything else replaces what ranks below it; files that agree in all but their times are
//     shared, and reported as a number only.
//   - A file against a directory: the winner takes the path. Whatever ranks below a file is lost,
//     other directories too, with everything in it, as in an overlay; a directory that outranks the
//     file doesn't merge with one ranking below it. All of it is listed.
//   - A directory against a symlink that leads to a directory: whoever wins, the link stays, and
//     what is in the directory moves to where the link leads, as dpkg has it. So a module that
//     ships /sbin as a directory doesn't take /sbin -> usr/sbin, and with it half of the system,
//     away from everyone else. Rank decides in the new place as in any; moves are reported.
//   - Hard links stay linked, as far as their names win.
//
// A mask drops what it covers from its own module and from those that its module wins over; the
// directories above stay. It is looked at with the path that a file has in its module and with
// that where it moved to. (The existing platform leaves such paths out when it captures a module:
// its effective mask of a module is the module's own and those of the higher-priority neighbours.)
//
// A protected_spec names what no other module may ship: if one does, whatever its rank, or hides it
// with its mask, there is no composition, and the error says which two modules disagree. A
// directory that both have with equal attributes is no offence. Each module protects the
// directory below usr/lib/powernode/modules that bears its name.
//
// In the end the result is made canonical as a sealed tree is: the root directory takes the
// attributes of /usr, and /run, into which only a move can have put anything, is empty and takes
// the time of /usr.
//
// Composing is not associative in general: masks act downwards, and a file cuts off what ranks
// below it. It is where no module has a mask and none has a directory where another has
// something else; then composing a composition of neighbouring ranks gives the same tree.
package compose
