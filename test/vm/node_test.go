package vm

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/initramfs"
	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/persist"
	"github.com/powernode/powernode-agent/test/lab"
	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// platform is a running powernode-platform whose nodes are machines.
type platform struct{ *lab.Platform }

// newPlatform starts a platform that machines reach at the address that QEMU has for the host.
func newPlatform(t testing.TB, flags ...string) *platform {
	t.Helper()
	need(t)
	port := freePort(t)
	p := &lab.Platform{T: t, Dir: filepath.Join(lab.TempDir(t), "platform"), Listen: "0.0.0.0:" + port, Key: lab.SigningKey(t)}
	p.Flags = append([]string{"--public-url", "https://" + hostAddress + ":" + port}, flags...)
	p.Config = filepath.Join(p.Dir, "operator.json")
	p.Start()
	return &platform{p}
}

// node is one machine: its disk, what its firmware says, and its initramfs.
type node struct {
	t    testing.TB
	p    *platform
	name string
	// disk is its persist disk, identity what its firmware says of it.
	disk     string
	identity map[string]string
	// machine is what boots; a test may alter it before.
	machine qemu.Machine
	token   operatorapi.Token
}

// node makes a node that has never booted, with these modules assigned.
func (p *platform) node(name string, modules ...string) *node {
	p.T.Helper()
	n := &node{t: p.T, p: p, name: name, disk: qemu.NewDisk(p.T, 1024, persist.Label, "")}
	p.Operator("node", "create", name).OK(p.T)
	if len(modules) > 0 {
		p.assign(name, modules...)
	}
	n.newToken()
	n.machine = qemu.Machine{
		Initramfs: agentInitramfs(p.T, p, "integrity: enforced\n", ""),
		Disks:     []qemu.Disk{{Path: n.disk}},
		Network:   true, Reboots: true,
	}
	return n
}

// assign adds these modules to the node's list.
func (p *platform) assign(name string, modules ...string) {
	p.T.Helper()
	p.Operator(append([]string{"assign", name}, modules...)...).OK(p.T)
}

// newToken gives the node a bootstrap token, and its firmware the identity.
func (n *node) newToken(flags ...string) {
	n.t.Helper()
	n.token = n.p.Token(n.name, flags...)
	const prefix = "opt/com.powernode/"
	n.identity = map[string]string{
		prefix + "instance_uuid": n.token.NodeID, prefix + "bootstrap_token": n.token.Token,
		prefix + "platform_url": n.token.PlatformURL, prefix + "ca_pem": n.token.CAPEM,
	}
}

// initramfses are those that were made, by what is special in them.
var initramfses sync.Map

// agentInitramfs returns the minimal initramfs, with a trust policy that has these further lines
// and the operator's key for the platform's modules, and with these settings as boot.yaml.
func agentInitramfs(t testing.TB, p *platform, policy, settings string) string {
	t.Helper()
	return initramfsOf(t, lab.Program("powernode-agent"), p, policy, settings)
}

// initramfsOf is agentInitramfs with another build of the agent.
func initramfsOf(t testing.TB, agent string, p *platform, policy, settings string) string {
	t.Helper()
	key := agent + "\x00" + policy + "\x00" + settings
	if path, ok := initramfses.Load(key); ok {
		return path.(string)
	}
	dir, err := os.MkdirTemp(os.Getenv(lab.RunEnv), "initramfs") // for all tests of the run
	if err != nil {
		t.Fatal(err)
	}
	trust := filepath.Join(dir, "trust")
	if err := os.Mkdir(trust, 0o755); err != nil {
		t.Fatal(err)
	}
	p.Trust(t, trust, `"`+hostAddress+`:*/modules/*"`, policy)
	spec := initramfs.Spec{Init: agent, KernelDir: qemu.KernelDir(t), Trust: trust, CA: "/etc/ssl/certs/ca-certificates.crt"}
	if settings != "" {
		spec.BootConfig = filepath.Join(dir, "boot.yaml")
		lab.Write(t, spec.BootConfig, []byte(settings), 0o644)
	}
	path := filepath.Join(dir, "initramfs")
	report := writeInitramfs(t, path, spec)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("initramfs: %d bytes, %d modules, the agent %d bytes", info.Size(), len(report.Modules), report.InitSize)
	initramfses.Store(key, path)
	return path
}

// system is a node that is on.
type system struct {
	*qemu.Guest
	n *node
}

// start switches the node on.
func (n *node) start() *system {
	n.t.Helper()
	m := n.machine
	if m.FirmwareConfig == nil {
		m.FirmwareConfig = n.identity
	}
	return &system{m.Start(n.t), n}
}

// boot switches the node on and returns once its init runs.
func (n *node) boot() *system {
	n.t.Helper()
	s := n.start()
	s.WaitInit()
	return s
}

// agent runs the agent inside.
func (s *system) agent(args ...string) lab.Result {
	s.n.t.Helper()
	r := s.Run(append([]string{boot.AgentPath}, args...)...)
	r.What = strings.TrimPrefix(r.What, filepath.Dir(boot.AgentPath)+"/")
	return r
}

// good runs the agent's service inside until it has found the running generation good.
func (s *system) good() {
	s.n.t.Helper()
	if a := s.Do(qemu.Request{Op: "start", Args: []string{"service", boot.AgentPath, "service", "--reconcile=off"}}); a.Error != "" {
		s.n.t.Fatal(a.Error)
	}
	for deadline := time.Now().Add(qemu.Patience); ; time.Sleep(time.Second) {
		doc := s.status()
		if doc.InStep {
			break
		}
		if time.Now().After(deadline) {
			s.n.t.Fatalf("the generation isn't found good: %q", doc.Reasons)
		}
	}
	if a := s.Do(qemu.Request{Op: "stop", Args: []string{"service"}}); a.Code != 0 || a.Error != "" {
		s.n.t.Errorf("the service ends with %d %s:\n%s", a.Code, a.Error, a.Stderr)
	}
}

// statusDoc is the part of `status --output json` that tests look at.
type statusDoc struct {
	InStep     bool     `json:"in_step"`
	Reasons    []string `json:"reasons"`
	Generation uint64   `json:"generation"`
	RootDigest string   `json:"root_digest"`
	Level      string   `json:"integrity_level"`
	Remarks    []string `json:"remarks"`
	Modules    []struct {
		Name, Version string
	} `json:"modules"`
	LastFailed struct {
		Generation uint64 `json:"generation"`
		Reason     string `json:"reason"`
	} `json:"last_failed"`
}

// status asks the agent inside for what is mounted, in step or not.
func (s *system) status() statusDoc {
	s.n.t.Helper()
	r := s.agent("status", "--output", "json")
	if r.Code == 8 {
		r.Code = 0
	}
	var doc statusDoc
	r.Into(s.n.t, &doc)
	return doc
}

// journal is the document that the boot leaves in /run.
func (s *system) journal() boot.Facts {
	s.n.t.Helper()
	var f boot.Facts
	if err := json.Unmarshal([]byte(s.Read("/run/powernode/boot.json")), &f); err != nil {
		s.n.t.Fatal(err)
	}
	return f
}
