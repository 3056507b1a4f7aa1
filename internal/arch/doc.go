// Package arch holds no program code: its tests keep the shape of the repository. They read the
// import graph and the sources, and fail with the rule that a change breaks.
package arch
