package e2e

import (
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// bootWords are what the console says when a stage is done, in order.
var bootWords = []string{"1/6 identify:", "2/6 enroll:", "pull ", "3/6 fetch:", "4/6 verify:", "5/6 compose:", "6/6 mount:", "starting /sbin/init"}

// TestKilledBoots: whenever a boot is killed, the node's first one or one that brings something
// new, the next boot comes up, and with the same root as if nothing had happened.
func TestKilledBoots(t *testing.T) {
	t.Parallel()
	kills := envNumber(t, "POWERNODE_E2E_KILLS", 12)
	seed := uint64(envNumber(t, "POWERNODE_E2E_SEED", int(time.Now().UnixNano()&0x7fffffff)))
	t.Logf("POWERNODE_E2E_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	p := platformWith(t, base("1"), app("1"), large(2<<20))
	modules := []string{"base", "app", "large"}
	model := p.node("model", modules...)
	// Nodes that have run, for the second half.
	old := make([]*node, kills/4)
	for i := range old {
		old[i] = p.node(nodeName(), modules...)
		old[i].boot().exit()
	}
	first, took := timedBoot(model)
	for i := range kills - len(old) {
		n := p.node(nodeName(), modules...)
		n.killedBoot(random, i, took)
		n.comesUp(first, "1")
	}

	// The same, when there is something to fall back to.
	p.Publish(app("2"))
	second, took := timedBoot(model)
	for i, n := range old {
		n.killedBoot(random, i+1, took)
		n.killedBoot(random, i+2, took)
		n.comesUp(second, "2")
	}
}

// timedBoot boots a node undisturbed and returns its root and how long it took.
func timedBoot(n *node) (root string, took time.Duration) {
	n.t.Helper()
	begun := time.Now()
	s := n.boot()
	took = time.Since(begun)
	root = s.status().RootDigest
	s.exit()
	return root, took
}

// killedBoot boots the node and kills it: every second time at any moment, else shortly after the
// console says the number's word.
func (n *node) killedBoot(random *rand.Rand, number int, took time.Duration) {
	n.t.Helper()
	l := n.listenControl()
	defer l.Close()
	p := n.bootProcess()
	if number%2 == 0 {
		select {
		case <-time.After(time.Duration(random.Int64N(int64(took)))):
		case <-p.Done:
		}
	} else {
		// A boot that has nothing to pull doesn't say so, and comes to the last word.
		p.Log.Await(p.Done, bootWords[number/2%len(bootWords)], bootWords[len(bootWords)-1])
		time.Sleep(time.Duration(random.Int64N(int64(took / 10))))
	}
	p.Kill()
	if strings.Contains(p.Log.String(), "powernode-agent: ") {
		n.t.Errorf("the boot failed before it was killed:\n%s", p.Log)
	}
}

// comesUp boots a node that was killed, which must run that root as that generation.
func (n *node) comesUp(root, generation string) {
	n.t.Helper()
	n.nothingMounted()
	s := n.boot()
	status := s.status()
	if status.RootDigest != root || !status.InStep || len(status.Remarks) != 0 {
		n.t.Errorf("after a kill: %+v, want root %s\n%s", status, root, s.console())
	}
	for _, m := range status.Modules {
		s.agent("verify", m.Name).OK(n.t)
	}
	s.exit()
	if current := n.pointer("current"); current != generation {
		n.t.Errorf("after a kill, current is %s, not %s", current, generation)
	}
}

func envNumber(t testing.TB, name string, usual int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
