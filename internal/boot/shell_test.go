package boot

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	consoleEnv = "POWERNODE_TEST_CONSOLE"
	policyEnv  = "POWERNODE_TEST_POLICY"
)

// TestShellOnTheConsole boots up to powernode.break on a terminal at which somebody sits. Where the policy allows it
// they get a shell that does what is typed, with the console as its terminal, and then the boot goes on.
func TestShellOnTheConsole(t *testing.T) {
	o := sits(t, "recovery_shell: true\n")
	if o == nil {
		return
	}
	o.waits("1/3 prepare:", "stopped before stage persist", prompt)
	o.types("shell")
	o.waits("a shell was begun")
	o.types("echo the sum is $((40+2)) in $(tty) at $PWD with $HOME")
	o.waits("the sum is 42 in /dev/", " at / with /root")
	o.types("[ $$ = $(cut -d' ' -f6 /proc/$$/stat) ] && echo it leads $((1+0)) session")
	o.waits("it leads 1 session")
	o.types("exit")
	o.waits("the shell has ended", prompt)
	o.types("continue")
	o.waits("2/3 persist: ran", "3/3 mount: ran", "hands over")
	o.ends()
}

// TestNoShellWithoutConsent: without the policy's word the break doesn't count, and a boot that fails gives no shell
// either.
func TestNoShellWithoutConsent(t *testing.T) {
	o := sits(t, "")
	if o == nil {
		return
	}
	o.waits("powernode.break doesn't count: the trust policy has no recovery_shell", "2/3 persist: ran", "3/3 mount: ran", "This machine can't boot: no root", prompt)
	o.types("shell")
	o.waits("allows no shell", prompt)
	o.types("echo the sum is $((40+2))")
	o.waits("isn't known", prompt)
	if o.says("the sum is 42") || o.says("a shell was begun") || o.says("stopped before") {
		o.t.Errorf("the console says:\n%s", o.seen.String())
	}
	o.types("poweroff")
	o.waits("told to poweroff", "is off")
	o.ends()
}

// sits starts a machine whose kernel command line wants a break, and whose trust policy has these further lines,
// and returns who sits at its console. It is nil in the machine, once that has ended.
func sits(t *testing.T, policy string) *operator {
	t.Helper()
	if os.Getenv(inPrivate) != "" {
		private(t)
		breaks(t, os.Getenv(policyEnv))
		return nil
	}
	person, console := serialLine(t)
	cmd := private(t, consoleEnv+"="+console, policyEnv+"="+policy)
	// What the machine's process says is on its console, as soon as that is its own.
	tty, err := os.OpenFile(console, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = tty, tty
	err = errors.Join(cmd.Start(), tty.Close())
	if err != nil {
		t.Fatal(err)
	}
	o := &operator{t: t, person: person, grown: make(chan struct{}, 1), ended: make(chan error, 1)}
	go o.reads()
	go func() { o.ended <- cmd.Wait() }()
	t.Cleanup(func() {
		if t.Failed() {
			_ = cmd.Process.Kill()
		}
	})
	return o
}

// breaks is the machine: its own first stage, its own console, its own way through recovery, and stages that do
// nothing after them. Without a shell its hand-over fails.
func breaks(t *testing.T, policy string) {
	t.Helper()
	dir := trustDir(t, TrustName)
	trust := filepath.Join(dir, TrustName)
	if err := os.WriteFile(trust, []byte(testPolicy+policy), 0o600); err != nil {
		t.Fatal(err)
	}
	mounted(t, os.Getenv(consoleEnv), consolePath, "", unix.MS_BIND)
	// A command line that says "quiet" leaves this kernel's own console as it is.
	mounted(t, file(t, "cmdline", "quiet powernode.break=persist\n"), cmdlinePath, "", unix.MS_BIND)
	config := Config{Trust: trust, Settings: filepath.Join(dir, "none.yaml"), Console: os.Stdout, Now: time.Now}
	if err := config.fill(); err != nil {
		t.Fatal(err)
	}
	b := newBoot(config)
	t.Cleanup(b.close)
	nothing := func(context.Context) (string, error) { return "ran", nil }
	b.course.stages = []Stage{b.course.stages[0], {"persist", time.Minute, nothing}, {"mount", time.Minute, nothing}}
	m := newMachine(b)
	m.steady = func() {}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m.down = func(act action) {
		if act != powerOff {
			t.Errorf("told to %s", act)
		}
		m.voice.say("is off")
	}
	m.switchTo = func() error {
		if policy == "" {
			return errors.New("no root")
		}
		m.voice.say("hands over")
		return nil
	}
	err := m.run(ctx)
	if (err == nil) != (policy != "") {
		t.Error(err)
	}
	// Nobody reads any more once the test has ended.
	if m.terminal != nil {
		m.terminal.end()
	}
	_, _ = io.WriteString(os.Stdout, "\n")
}
