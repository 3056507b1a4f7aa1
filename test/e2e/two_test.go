package e2e

import "testing"

// TestTwoBootsAtOnce: of two first boots over one disk at least one comes up. The other does too,
// or says that it was in the way; neither spoils anything, and the token is used once.
func TestTwoBootsAtOnce(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"))
	p.Publish(large(1 << 20))
	n := p.node("web", "base", "large")
	l := n.listenControl()
	defer l.Close()
	boots := []*process{n.bootProcess(), n.bootProcess()}
	var systems []*system
	for _, b := range boots {
		if _, ok := b.Log.Await(b.Done, "starting /sbin/init"); !ok {
			r := b.Result()
			r.Refused(t, 1, "by another process", "wait")
			continue
		}
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		systems = append(systems, newSystem(n, b, conn))
	}
	if len(systems) == 0 {
		t.Fatal("neither comes up")
	}
	for _, s := range systems {
		if status := s.status(); !status.InStep || status.Generation != 1 || len(status.Remarks) != 0 {
			t.Errorf("status: %+v", status)
		}
		s.do("exit", "")
	}
	for _, b := range boots {
		<-b.Done
	}
	if certificates := n.detail().Certificates; len(certificates) != 1 {
		t.Errorf("the node has %d certificates", len(certificates))
	}
	s := n.boot()
	if status := s.status(); !status.InStep || status.Generation != 1 || len(status.Remarks) != 0 {
		t.Errorf("afterwards: %+v", status)
	}
	s.exit()
}
