package boot

import (
	"context"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
)

// shells are what may be in an initramfs to look around with, each with its arguments.
var shells = [][]string{{"/bin/sh"}, {"/bin/bash"}, {"/bin/busybox", "sh"}, {"/usr/bin/busybox", "sh"}}

// shell gives the console to a shell until it ends.
func (m *machine) shell(ctx context.Context) error {
	for _, argv := range shells {
		if _, err := os.Stat(argv[0]); err != nil {
			continue
		}
		m.terminal.end()
		defer m.terminal.begin()
		console, err := os.OpenFile(consolePath, os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			return err
		}
		defer console.Close()
		m.voice.say("recovery: a shell was begun")
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = console, console, console
		cmd.Env, cmd.Dir = initEnvironment, "/"
		// A session of its own, with the console as its terminal, so that ^C ends what runs in it.
		cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
		err = cmd.Run()
		m.voice.say("recovery: the shell has ended")
		reap()
		return err
	}
	return fault.New(fault.Refuse, fault.Input, "", "there is none in this initramfs")
}

// reap takes in processes that ended and have nobody else to wait for them. It is called where this
// process waits for none of its own.
func reap() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if err != nil && err != unix.EINTR || pid == 0 {
			return
		}
	}
}
