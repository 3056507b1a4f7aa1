// Command init is the init of the systems that the tests boot. It does what it is asked to, one
// JSON line each way: in a virtual machine over a virtio port, where it says hello first; in
// namespaces over a socket that the test listens on. It ends with the connection, and ends a
// machine with itself. As "init load" it uses files in tight loops; see load.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	socket = "/persist/e2e/ctl"
	port   = "org.powernode.test"
)

type request struct {
	Op   string   `json:"op"`
	Args []string `json:"args"`
	Data string   `json:"data"`
}

type answer struct {
	Hello  bool   `json:"hello,omitempty"`
	Code   int    `json:"code"`
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
	Error  string `json:"error"`
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "load" {
		if err := runLoad(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, "load:", err)
			os.Exit(1)
		}
		return
	}
	// What it starts can be hung up also where whoever runs the tests has nohup ignore that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	if _, err := os.Stat("/proc/self"); err != nil && os.Getpid() == 1 {
		if err := enterDisk(); err != nil {
			fmt.Println("test init:", err)
			stopMachine(syscall.LINUX_REBOOT_CMD_POWER_OFF)
		}
	}
	conn, machine, err := dial()
	if err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
		os.Exit(99)
	}
	encoder := json.NewEncoder(conn)
	if machine {
		fmt.Println("test init: up")
		_ = encoder.Encode(answer{Hello: true})
		defer stopMachine(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	}
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			os.Exit(98)
		}
		switch r.Op {
		case "exit":
			_ = encoder.Encode(answer{})
			return
		case "poweroff":
			return
		case "reboot":
			stopMachine(syscall.LINUX_REBOOT_CMD_RESTART)
		}
		a, err := do(r)
		if err != nil {
			a.Error = err.Error()
		}
		if err := encoder.Encode(a); err != nil {
			os.Exit(97)
		}
	}
}

// dial opens the connection to the test, and says whether this is a machine.
func dial() (conn io.ReadWriter, machine bool, err error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, false, err
	}
	for _, name := range names {
		if text, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(text)) == port {
			f, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(name)), os.O_RDWR, 0)
			return f, true, err
		}
	}
	conn, err = net.Dial("unix", socket)
	return conn, false, err
}

// stopMachine ends the machine with all that was written on its disks.
func stopMachine(how int) {
	syscall.Sync()
	_ = syscall.Reboot(how) // as an ordinary process it hasn't the right to
}

var running = map[string]*exec.Cmd{}

func do(r request) (answer, error) {
	switch r.Op {
	case "self":
		return answer{Stdout: strings.Join(append(os.Args, os.Environ()...), "\n")}, nil
	case "run":
		return run(r, nil)
	case "sandboxed":
		// As run, in a mount namespace of its own.
		return run(r, &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS})
	case "start":
		return answer{}, start(r)
	case "stop":
		return stop(r.Args[0])
	case "signal":
		return answer{}, send(r.Args[0], r.Data)
	case "read":
		text, err := os.ReadFile(r.Args[0])
		return answer{Stdout: string(text)}, err
	case "write":
		return answer{}, os.WriteFile(r.Args[0], []byte(r.Data), 0o600)
	case "keep":
		return answer{}, keep(r.Args[0], r.Data)
	case "cover":
		// One of the kernel's files, as on another machine.
		path := "/run/covers" + r.Args[0]
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return answer{}, err
		}
		if err := os.WriteFile(path, []byte(r.Data), 0o600); err != nil {
			return answer{}, err
		}
		return answer{}, syscall.Mount(path, r.Args[0], "", syscall.MS_BIND, "")
	case "remove":
		return answer{}, os.Remove(r.Args[0])
	case "drop-caches":
		// What is on the disk is read from there the next time.
		syscall.Sync()
		return answer{}, os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0o200)
	case "list":
		entries, err := os.ReadDir(r.Args[0])
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return answer{Stdout: strings.Join(names, " ")}, err
	default:
		return answer{}, errors.New("no such operation: " + r.Op)
	}
}

// keep makes a file that a power cut doesn't take.
func keep(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func run(r request, how *syscall.SysProcAttr) (answer, error) {
	var out, errs bytes.Buffer
	cmd := exec.Command(r.Args[0], r.Args[1:]...)
	cmd.SysProcAttr = how
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(r.Data), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	a := answer{Stdout: out.String(), Stderr: errs.String()}
	if cmd.ProcessState != nil {
		a.Code = cmd.ProcessState.ExitCode()
	}
	return a, err
}

// start starts a program that goes on. Args are a name, then the program and its arguments.
func start(r request) error {
	log, err := os.Create("/run/" + r.Args[0] + ".log")
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(r.Args[1], r.Args[2:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	running[r.Args[0]] = cmd
	return nil
}

// send sends such a program SIGHUP or SIGKILL; one that is killed is no more.
func send(name, which string) error {
	cmd := running[name]
	switch {
	case cmd == nil:
		return errors.New("nothing is called " + name)
	case which == "hangup":
		return cmd.Process.Signal(syscall.SIGHUP)
	case which != "kill":
		return errors.New("no such signal: " + which)
	}
	delete(running, name)
	err := cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	return err
}

// stop ends such a program by SIGTERM and returns its log.
func stop(name string) (answer, error) {
	cmd := running[name]
	if cmd == nil {
		return answer{}, errors.New("nothing is called " + name)
	}
	delete(running, name)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return answer{}, err
	}
	_ = cmd.Wait() // the exit code says it
	log, err := os.ReadFile("/run/" + name + ".log")
	return answer{Code: cmd.ProcessState.ExitCode(), Stderr: string(log)}, err
}
