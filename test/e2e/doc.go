// Package e2e tests the whole: the three programs as they are built, started as processes, with
// a real platform on loopback and nodes that really boot, each in namespaces of its own.
//
// It holds no program code. Its tests promise to touch nothing of the machine: everything mounted
// is mounted in a namespace that ends with the tests, every process that they start ends with
// them, and the network is 127.0.0.1. What they need of it is root and Linux 6.5 with EROFS and
// overlay; without, they are skipped.
//
// A test reads like a session of an operator:
//
//	p := platformWith(t, base("1"))
//	n := p.node("web", "base")
//	s := n.boot()
//	s.agent("status")
//
// The composed root's init is test/lab/init, which does what the test asks for over a socket
// below /persist. POWERNODE_E2E_BIN names a directory with the built programs, to save building
// them; POWERNODE_E2E_KILLS is how many boots the kill tests interrupt.
package e2e
