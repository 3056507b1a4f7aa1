package vm

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/test/lab"
	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// killable returns an agent whose machine can be made to lose its power at a labelled write.
var killable = sync.OnceValues(func() (string, error) {
	path := filepath.Join(os.Getenv(lab.RunEnv), "killable", "powernode-agent")
	cmd := exec.Command("go", "build", "-tags", "powernode_killpoints", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", path, "./cmd/powernode-agent")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// siege is a campaign of power cuts, and its tally.
type siege struct {
	t      *testing.T
	p      *platform
	random *rand.Rand
	// killed counts the power cuts by kind, missed the labels that didn't come up when they were waited for.
	killed map[string]int
	missed []string
	boots  int
	nodes  int
	// app is the version of the module that is published last, roots are the known root digests by version.
	app   int
	roots map[string]string
	// took is how long an undisturbed boot takes until its generation is found good.
	took time.Duration
}

func newSiege(t *testing.T) *siege {
	t.Helper()
	seed := uint64(number(t, "POWERNODE_VM_SEED", int(time.Now().UnixNano()&0x7fffffff)))
	t.Logf("POWERNODE_VM_SEED=%d", seed)
	s := &siege{t: t, p: newPlatform(t), random: rand.New(rand.NewPCG(seed, 0)), killed: make(map[string]int), roots: make(map[string]string)}
	s.p.Publish(base(t, "1"))
	s.publish()
	return s
}

// number returns what the environment says, or else the usual.
func number(t testing.TB, name string, usual int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" || text == eachWrite {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// publish publishes the next version of the app, which every node of the siege then has to run.
func (s *siege) publish() {
	s.t.Helper()
	s.app++
	s.p.Publish(app(s.newest()))
}

// newest is the version of the app that was published last.
func (s *siege) newest() string { return strconv.Itoa(s.app) }

func (s *siege) total() (n int) {
	for _, k := range s.killed {
		n += k
	}
	return n
}

// victim is a node whose power is cut, and what must outlive that.
type victim struct {
	*siege
	n *node
	// marks are files that were on the disk, by path.
	marks map[string]string
	// serial is that of the node's certificate, once it is known to have one.
	serial string
	// attempts are the last attempt at each generation that was said on the console.
	attempts map[string]int
	// tries is how many attempts a generation has.
	tries int
}

// victim makes a node that has never booted. An empty disk has no file system yet.
func (s *siege) victim(empty bool) *victim {
	s.t.Helper()
	agent, err := killable()
	if err != nil {
		s.t.Fatal(err)
	}
	s.nodes++
	n := s.p.node("victim"+strconv.Itoa(s.nodes), "base", "app")
	n.machine.Initramfs = initramfsOf(s.t, agent, s.p, "integrity: enforced\n", "")
	n.machine.Reboots = false // the console is of one boot, and ends with it
	if empty {
		n.disk = qemu.EmptyDisk(s.t, 1024)
		n.machine.Disks = []qemu.Disk{{Path: n.disk, Serial: "persist"}}
	}
	v := &victim{
		siege: s, n: n, tries: 100, marks: make(map[string]string), attempts: make(map[string]int),
	}
	return v
}

// power switches the machine on; point is where to cut it, "" for nowhere, "record" to tell of all such points.
func (v *victim) power(point string) *system {
	v.t.Helper()
	m := &v.n.machine
	m.Append = "powernode.tries=" + strconv.Itoa(v.tries)
	if len(m.Disks) > 0 && m.Disks[0].Serial != "" {
		m.Append += " powernode.persist=SERIAL=persist powernode.persist_prepare=empty"
	}
	if point != "" {
		m.Append += " test.kill=" + point
	}
	v.boots++
	return v.n.start()
}

// cut notes that the machine has lost its power, and looks at what is left on the disk.
func (v *victim) cut(s *system, kind string) {
	v.t.Helper()
	s.Kill()
	v.killed[kind]++
	v.heard(s)
	if v.formatted() {
		qemu.Check(v.t, qemu.CopyDisk(v.t, v.n.disk))
	}
}

// formatted reports whether the machine's disk has a file system: the boot makes it, in the end takes away
// what it wrote at the beginning.
func (v *victim) formatted() bool {
	v.t.Helper()
	f, err := os.Open(v.n.disk)
	if err != nil {
		v.t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 2048)
	if _, err := io.ReadFull(f, b); err != nil {
		v.t.Fatal(err)
	}
	// The magic number of ext4, in the superblock at 1024.
	return b[0] == 0 && b[1024+56] == 0x53 && b[1024+57] == 0xef
}

var (
	attemptLine = regexp.MustCompile(`mount: generation (\d+),.*attempt (\d+) of (\d+)`)
	wrongLine   = regexp.MustCompile(`(?m)^.*(Kernel panic|internal error|This machine can't boot|EXT4-fs error).*$`)
)

// heard checks what a boot said.
func (v *victim) heard(s *system) {
	v.t.Helper()
	text := s.Console()
	if found := wrongLine.FindString(text); found != "" {
		v.t.Errorf("after %d power cuts: %s\n%s", v.total(), found, text)
	}
	for _, f := range attemptLine.FindAllStringSubmatch(text, -1) {
		at, _ := strconv.Atoi(f[2])
		of, _ := strconv.Atoi(f[3])
		if at <= v.attempts[f[1]] || at > of || of != v.tries {
			v.t.Errorf("generation %s: attempt %d of %d, after attempt %d", f[1], at, of, v.attempts[f[1]])
		}
		v.attempts[f[1]] = at
	}
}

// killAt cuts the power at a labelled write of the boot, or of the service after it. Where the write doesn't
// come, that is noted, and the power is cut then.
func (v *victim) killAt(point string) {
	v.t.Helper()
	s := v.power(point)
	if s.TryInit() && (strings.HasPrefix(point, "boot/") || v.begin(s, "service") && v.waitGood(s)) {
		v.miss(s, point)
		return
	}
	v.wasKilledAt(s, point)
}

// miss notes that a labelled write didn't come.
func (v *victim) miss(s *system, point string) {
	v.t.Helper()
	v.missed = append(v.missed, point)
	v.cut(s, "instead of a label")
}

func (v *victim) wasKilledAt(s *system, point string) {
	v.t.Helper()
	s.WaitEnd()
	if !strings.Contains(s.Console(), "killed at "+point) {
		v.t.Errorf("the machine ended before %s:\n%s", point, s.Console())
	}
	process, _, _ := strings.Cut(point, "/")
	v.cut(s, "label of "+process)
}

// killUpdate publishes a new version and cuts the power while the running system fetches it: at a labelled
// write, or where point is "", at any time.
func (v *victim) killUpdate(point string) {
	v.t.Helper()
	s := v.power(point)
	s.WaitInit()
	v.publish()
	if point == "" {
		v.begin(s, "update")
		time.Sleep(v.within(v.took / 6))
		v.cut(s, "update")
		return
	}
	if _, on := s.Try(qemu.Request{Op: "run", Args: []string{boot.AgentPath, "update", "--stage"}}); on {
		v.miss(s, point)
		return
	}
	v.wasKilledAt(s, point)
}

// begin starts the agent's service or an update inside, and reports whether the machine is still on.
func (v *victim) begin(s *system, what string) bool {
	v.t.Helper()
	args := []string{what, boot.AgentPath, what}
	if what == "service" {
		args = append(args, "--reconcile=off") // what runs is for the test to change
	}
	_, on := s.Try(qemu.Request{Op: "start", Args: args})
	return on
}

// waitGood waits until the generation is found good, and reports whether it is before the machine ends.
func (v *victim) waitGood(s *system) bool {
	v.t.Helper()
	for deadline := time.Now().Add(qemu.Patience); time.Now().Before(deadline); time.Sleep(time.Second / 2) {
		a, on := s.Try(qemu.Request{Op: "run", Args: []string{boot.AgentPath, "status"}})
		if !on {
			return false
		}
		if a.Code == 0 && a.Error == "" {
			return true
		}
	}
	v.t.Errorf("the generation isn't found good:\n%s", s.Console())
	return true
}

// within returns a time up to most, by chance.
func (s *siege) within(most time.Duration) time.Duration {
	return time.Duration(s.random.Int64N(int64(most)))
}

// stageWords are what the console says when a stage of a boot is done, in order.
var stageWords = []string{" prepare:", " network:", " persist:", " identify:", " enroll:", "pull ", " fetch:", " verify:", " compose:", " mount:", "starting /sbin/init"}

// killSometime cuts the power at any time between power-on and the service's verdict: every second time shortly
// after the console says the word of a stage.
func (v *victim) killSometime(kind string) {
	v.t.Helper()
	if v.random.IntN(2) == 0 {
		v.killAfter(kind, stageWords[v.random.IntN(len(stageWords))], v.took/15)
		return
	}
	s := v.power("")
	timer := time.AfterFunc(v.within(v.took), s.Kill)
	defer timer.Stop()
	if s.TryInit() && v.begin(s, "service") {
		<-s.Done
	}
	v.cut(s, kind)
}

// killAfter cuts the power up to a while after the console says a word.
func (v *victim) killAfter(kind, word string, most time.Duration) {
	v.t.Helper()
	s := v.power("")
	// A boot that has nothing to pull doesn't say so, and comes to the last word.
	if _, ok := s.Log.Await(s.Done, word, stageWords[len(stageWords)-1]); !ok {
		v.t.Errorf("the machine ended by itself:\n%s", s.Console())
	}
	time.Sleep(v.within(most))
	v.cut(s, kind)
}

// killGate cuts the power while the service judges the generation.
func (v *victim) killGate() {
	v.t.Helper()
	s := v.power("")
	s.WaitInit()
	v.begin(s, "service")
	time.Sleep(v.within(v.took / 3))
	v.cut(s, "health gate")
}

// comesUp powers the machine on until init runs, and checks that the version of the app runs, with everything
// that was on the disk.
func (v *victim) comesUp(version string) *system {
	v.t.Helper()
	s := v.power("")
	s.WaitInit()
	v.whole(s, version)
	return s
}

// known is the part of `introspect --output json` that is looked at.
type known struct {
	Credentials struct{ Serial, Situation string }
	Generations []struct {
		Number uint64
	}
	Pointers map[string]uint64
	Boot     struct {
		ExpectedRootDigest string `json:"expected_root_digest"`
	}
	Problems []string
}

func (v *victim) whole(s *system, version string) {
	v.t.Helper()
	wrong := func(format string, args ...any) {
		v.t.Helper()
		v.t.Errorf("after %d power cuts: %s\n%s", v.total(), fmt.Sprintf(format, args...), s.Console())
	}
	var k known
	s.agent("introspect", "--output", "json").Into(v.t, &k)
	r := s.agent("status", "--check", "--output", "json")
	var doc statusDoc
	if err := json.Unmarshal([]byte(r.Stdout), &doc); err != nil || r.Code != 0 && r.Code != 8 {
		wrong("status --check: exit code %d, %v\n%s%s", r.Code, err, r.Stdout, r.Stderr)
		return
	}
	if v.roots[version] == "" {
		v.roots[version] = k.Boot.ExpectedRootDigest
	}
	if doc.RootDigest == "" || doc.RootDigest != v.roots[version] || doc.Level != "enforced" {
		wrong("root %s at level %s, want %s of version %s", doc.RootDigest, doc.Level, v.roots[version], version)
	}
	if got := s.Read(page); got != pageText(version) {
		wrong("the page is %.60q, want that of version %s", got, version)
	}
	if len(k.Problems) > 0 {
		wrong("problems: %q", k.Problems)
	}
	if v.serial == "" {
		v.serial = k.Credentials.Serial
	}
	if k.Credentials.Serial == "" || k.Credentials.Serial != v.serial {
		wrong("the certificate is %q (%s), and was %q", k.Credentials.Serial, k.Credentials.Situation, v.serial)
	}
	for name, n := range k.Pointers {
		if !slices.ContainsFunc(k.Generations, func(g struct{ Number uint64 }) bool { return g.Number == n }) {
			wrong("%s is generation %d, which isn't there", name, n)
		}
	}
	for path, text := range v.marks {
		if a := s.Do(qemu.Request{Op: "read", Args: []string{path}}); a.Error != "" || a.Stdout != text {
			wrong("%s: %s, %d bytes of %d", path, a.Error, len(a.Stdout), len(text))
		}
	}
}

// mark leaves files behind that are on the disk when it returns.
func (v *victim) mark(s *system) {
	v.t.Helper()
	for _, dir := range []string{"/persist/marks", "/var/lib/marks"} {
		path := dir + "/" + strconv.Itoa(v.boots)
		text := strings.Repeat(path+" ", 1+v.random.IntN(2000))
		if a := s.Do(qemu.Request{Op: "keep", Args: []string{path}, Data: text}); a.Error != "" {
			v.t.Fatalf("%s\n%s", a.Error, s.Console())
		}
		v.marks[path] = text
	}
}

// good has the service find the running generation good.
func (v *victim) good(s *system) {
	v.t.Helper()
	if !v.begin(s, "service") || !v.waitGood(s) {
		v.t.Fatalf("the machine ended:\n%s", s.Console())
	}
}

var recorded = regexp.MustCompile(`(?m)^killpoint (\S+)\r*$`)

// points returns the labelled writes that a boot, its service and an update told of, in order.
func points(s *system) []string {
	var out []string
	for _, f := range recorded.FindAllStringSubmatch(s.Console(), -1) {
		out = append(out, f[1])
	}
	return out
}

// firsts returns the first of the points of each label.
func firsts(points []string) []string {
	var out []string
	for _, p := range points {
		if strings.HasSuffix(p, "@1") {
			out = append(out, p)
		}
	}
	return out
}

// productsDoNotListen checks that what ends a machine isn't in the agent as it is built for anybody.
func productsDoNotListen(t *testing.T) {
	t.Helper()
	agent, err := killable()
	if err != nil {
		t.Fatal(err)
	}
	const parameter = "sysrq-trigger"
	if strings.Contains(string(lab.Read(t, lab.Program("powernode-agent"))), parameter) {
		t.Error("the agent can be told to end its machine")
	}
	if !strings.Contains(string(lab.Read(t, agent)), parameter) {
		t.Error("the agent of these tests can't be told to end its machine")
	}
}
