// Package vm tests whole boots on a real kernel: from power-on in the agent's own initramfs, in a
// virtual machine, to a root whose every read the kernel checks. It also runs the tests of other
// packages that need such a kernel inside one.
//
// It holds no program code. What the tests need is root and what `scripts/setup vm` installs;
// without, they are skipped (and fail where POWERNODE_REQUIRE_TOOLS is set). A plain `go test` runs
// the few that are quick; `make test-vm` (POWERNODE_VM=all) runs all.
//
// # How a scenario is written
//
// It reads like a session of an operator who stands beside the machine:
//
//	p := newPlatform(t)              // a real platform; guests reach it at 10.0.2.2
//	p.Publish(base(t, "1"))          // a module with the tests' init (test/lab/init)
//	n := p.node("web", "base")       // a new machine with an empty disk, its identity in fw_cfg
//	s := n.boot()                    // power on, and wait until init runs
//	s.good()                         // the service finds the generation good
//	s.agent("status").OK(t)          // run the agent inside
//	s.PowerOff()
//
// What a scenario does to its machine, it does between these steps:
//
//   - to the machine before it is switched on: fields of n.machine (no network, another clock, a
//     disk that can't be written to, kernel parameters, another initramfs by agentInitramfs, a TPM: another
//     directory as n.machine.TPM is another TPM);
//   - to the disk while it is off: qemu.Edit mounts it, qemu.FlipByte changes a bit beneath the file
//     system, qemu.CopyDisk keeps a state to start from several times;
//   - to what is plugged into it: a CD by cidata and drive, a disk with a FAT file system by fat, as n.machine.Flags;
//   - while it runs: s.Kill is a power cut, s.Reboot a restart (s.WaitInit waits for the next
//     start), s.Do has init do things, s.Run runs programs;
//   - where init isn't expected to run: n.start, then s.WaitLine for what the console must say, and
//     s.Type to answer;
//   - to the platform: p.Stop and p.Start, p.Publish, p.assign.
//
// A new scenario is a test function of one machine, or of one platform and several machines one
// after the other: each boot takes ten seconds of a processor. Two test functions run at once,
// where they say t.Parallel. It begins with whole(t) unless it is among the few that every change
// must pass at once. It judges by what the guest says, and waits only by the functions of package
// qemu, which give up after qemu.Patience; it never sleeps, but until a certificate has ended, and
// never asserts a duration.
//
// # Power cuts
//
// A QEMU that is killed is a power cut that takes what the guest had in memory: what it had written to
// the disk stays, flushed or not. So are the cuts at labelled writes, for which the tests build an agent with
// the tag powernode_killpoints: it restarts its machine on the spot at the operation that the kernel parameter
// test.kill names, and QEMU ends there. TestLostWrites is about a cut that takes what the disk had in
// memory too. POWERNODE_VM_KILLS is how many cuts there are, POWERNODE_VM_SEED, which is printed, which ones;
// POWERNODE_VM_KILLS=writes is one at each labelled write, and at each step of a live change, for as long as go test's -timeout allows.
//
// A command of the running system can be ended alone, too, as by kill -9: by "kill LABEL" in /run/test.kill, which a test writes
// and removes while the machine runs. Without "kill " that is a power cut.
//
// # Use while something changes
//
// The tests' init is also a program that uses files in tight loops, readers and writers, and in the end tells of every
// failure: s.load and s.unload. POWERNODE_VM_CYCLES is how often TestLiveCycles attaches and detaches a module meanwhile.
//
// # What the machines can reach
//
// The test process runs in a mount and a network namespace of its own. The guests' user-mode network
// ends there: 10.0.2.2 is the namespace's loopback, and there is nothing else.
package vm
