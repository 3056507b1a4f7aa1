// Package health is the gate that a generation passes before it counts as good: it watches the booted system,
// decides, records the verdict, and restarts a machine that can go back to something better.
//
// It promises that only a generation whose system has started, without a unit that failed or starts over and
// over, and from which the platform was reached where it can be, becomes current; that one found bad is
// recorded as such before the machine restarts, with the reason; that a machine which has nothing to go back to stays
// up; and that every question to the machine is bounded.
//
// What is decided is a pure function of what was seen and when (see Judge). It trusts systemd and the kernel.
package health
