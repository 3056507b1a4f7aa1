package main

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestUmask: a root that was made by a unit with UMask=0077 had a "/" that only its owner could enter.
func TestUmask(t *testing.T) {
	before := unix.Umask(0o077)
	defer unix.Umask(before)
	begin()
	if got := unix.Umask(before); got != 0o022 {
		t.Errorf("the umask is %03o", got)
	}
}
