// Package qemu runs virtual machines for tests: QEMU with its emulator (no KVM, so that it runs
// anywhere), a serial console that is recorded, and a port by which the test has things done
// inside.
//
// It is for tests only. It promises that every machine that it starts has ended when the test ends,
// and that nothing waits for ever: what doesn't happen within Patience fails the test, with the
// console.
//
// A guest is judged by what it says, never by how QEMU ends: a kernel that panics ends QEMU with 0.
// A QEMU that is killed is a power cut as far as the guest is concerned: what it had not written
// is gone. What it had written without a flush stays, because the host keeps it; package durable's
// own tests are there for that.
package qemu

import (
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/test/lab"
)

// Patience is how long to wait for anything. An undisturbed boot takes a twentieth of it.
const Patience = 4 * time.Minute

// ControlPort is the name of the port at which the guest's init listens (test/lab/init).
const ControlPort = "org.powernode.test"

// Machine is a virtual machine that isn't running.
type Machine struct {
	// Kernel and Initramfs are files. Kernel is that of scripts/setup if "".
	Kernel, Initramfs string
	// Append is added to the kernel command line.
	Append string
	// Memory is in MiB; 0 is 1024. CPU is what QEMU calls the processor, "" the smallest.
	Memory int
	CPU    string
	// Disks are the machine's disks, in order: /dev/vda, /dev/vdb and so on.
	Disks []Disk
	// FirmwareConfig are the contents of fw_cfg files, by name.
	FirmwareConfig map[string]string
	// Network has the machine connected by user-mode networking: the guest has 10.0.2.15 from DHCP
	// and reaches servers on the loopback of the test's network namespace at 10.0.2.2. NetworkFlags
	// are added to -netdev user, such as ",ipv6=off".
	Network      bool
	NetworkFlags string
	// TPM gives it a TPM 2.0, whose state is in this directory.
	TPM string
	// Clock is what its clock shows at the start, RFC 3339 without the zone; "" is the present.
	Clock string
	// Reboots lets the guest restart itself. Without, QEMU ends when it does.
	Reboots bool
	// Flags are further ones of QEMU.
	Flags []string
}

// Disk is a disk of a machine.
type Disk struct {
	// Path is its image, raw.
	Path string
	// Serial is what it calls itself, at most 20 characters.
	Serial string
	// ReadOnly makes the guest unable to write to it.
	ReadOnly bool
	// Bus is what it is attached to, one of the constants below.
	Bus Bus
}

// Bus is how a disk is attached.
type Bus string

// The buses. A disk on another than Virtio is /dev/sda and so on.
const (
	Virtio Bus = ""
	SCSI   Bus = "scsi" // a controller of virtio's
	SATA   Bus = "sata" // the AHCI controller of the machine
	USB    Bus = "usb"  // a stick
)

// device returns what QEMU attaches the i-th disk by, up to its drive.
func (b Bus) device(i int) []string {
	n := strconv.Itoa(i)
	switch b {
	case SCSI:
		return []string{"-device", "virtio-scsi-pci,id=hba" + n, "-device", "scsi-hd,bus=hba" + n + ".0"}
	case SATA:
		return []string{"-device", "ide-hd,bus=ide." + n}
	case USB:
		return []string{"-device", "qemu-xhci,id=hba" + n, "-device", "usb-storage,removable=on,bus=hba" + n + ".0"}
	default:
		return []string{"-device", "virtio-blk-pci"}
	}
}

// Need ends the test where there is no QEMU or no guest kernel, as oracle.Missing does.
func Need(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		oracle.Missing(t, "qemu-system-x86_64 isn't installed; run scripts/setup vm")
	}
	if _, err := os.Stat(KernelDir(t)); err != nil {
		oracle.Missing(t, "there is no guest kernel; run scripts/setup vm")
	}
}

// cache is a path below what scripts/setup makes.
func cache(t testing.TB, path string) string {
	return filepath.Join(oracle.Root(t), ".cache", "vm", path)
}

// KernelDir returns the guest kernel's module directory, .../lib/modules/RELEASE.
func KernelDir(t testing.TB) string {
	t.Helper()
	found, err := filepath.Glob(cache(t, "kernel/lib/modules/*"))
	if err != nil || len(found) != 1 {
		return cache(t, "kernel/lib/modules/none")
	}
	return found[0]
}

// Kernel returns the guest kernel. vmlinux is the same as vmlinuz, but starts a second sooner.
func Kernel(t testing.TB) string {
	t.Helper()
	if path := cache(t, "kernel/vmlinux"); exists(path) {
		return path
	}
	return cache(t, "kernel/vmlinuz")
}

// Debian returns the directory of the guests' Debian: systemd, udev, D-Bus, LUKS, and the two
// initramfs builders. It is shared; copy what is to be changed.
func Debian(t testing.TB) string {
	t.Helper()
	Need(t)
	if dir := cache(t, "debian"); exists(dir) {
		return dir
	}
	oracle.Missing(t, "there is no Debian for the guests; run scripts/setup vm")
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// arguments returns QEMU's command line. control is the socket of the control port.
func (m Machine) arguments(t testing.TB, control string) []string {
	kernel, memory := m.Kernel, m.Memory
	switch {
	case kernel == "" && m.TPM != "":
		// QEMU puts the initramfs of an ELF kernel where the firmware has its tables, which are
		// larger with a TPM.
		kernel = cache(t, "kernel/vmlinuz")
	case kernel == "":
		kernel = Kernel(t)
	}
	if memory == 0 {
		memory = 1024
	}
	cpu := "qemu64"
	if m.CPU != "" {
		cpu = m.CPU
	}
	a := []string{
		// Without cx16: QEMU 7.2 loses the flags of a cmpxchg16b that faults, and Linux 6.12
		// crashes of it in one boot of six.
		"-cpu", cpu + ",-cx16", "-machine", "q35,accel=tcg", "-smp", "1", "-m", strconv.Itoa(memory),
		"-nodefaults", "-no-user-config", "-display", "none",
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=control,path=" + control,
		"-device", "virtserialport,chardev=control,name=" + ControlPort,
		// Without the check: on a busy host the emulated timer is late for it, and the kernel gives up.
		// Nor does it test its ciphers, which takes a quarter of an emulated boot.
		"-kernel", kernel, "-append", strings.TrimSpace("console=ttyS0 panic=-1 quiet loglevel=4 no_timer_check cryptomgr.notests=1 systemd.setenv=POWERNODE_RECONCILE=off " + m.Append),
	}
	if m.Initramfs != "" {
		a = append(a, "-initrd", m.Initramfs)
	}
	if !m.Reboots {
		a = append(a, "-no-reboot")
	}
	for i, d := range m.Disks {
		id := "disk" + strconv.Itoa(i)
		drive, device := "file="+d.Path+",format=raw,if=none,id="+id, d.Bus.device(i)
		if d.ReadOnly {
			drive += ",readonly=on"
		}
		last := &device[len(device)-1]
		*last += ",drive=" + id
		if d.Serial != "" {
			*last += ",serial=" + d.Serial
		}
		a = append(append(a, "-drive", drive), device...)
	}
	dir := filepath.Dir(control)
	for i, name := range slices.Sorted(maps.Keys(m.FirmwareConfig)) {
		file := filepath.Join(dir, "fw"+strconv.Itoa(i))
		lab.Write(t, file, []byte(m.FirmwareConfig[name]), 0o600)
		a = append(a, "-fw_cfg", "name="+name+",file="+file)
	}
	if m.Network {
		a = append(a, "-netdev", "user,id=net0"+m.NetworkFlags, "-device", "virtio-net-pci,netdev=net0")
	}
	if m.Clock != "" {
		a = append(a, "-rtc", "base="+m.Clock)
	}
	if m.TPM != "" {
		a = append(a, "-chardev", "socket,id=tpm,path="+startTPM(t, m.TPM), "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-tis,tpmdev=tpm0")
	}
	return append(a, m.Flags...)
}

// startTPM starts a software TPM and returns its socket.
func startTPM(t testing.TB, state string) string {
	t.Helper()
	if _, err := exec.LookPath("swtpm"); err != nil {
		oracle.Missing(t, "swtpm isn't installed; run scripts/setup vm")
	}
	socket := filepath.Join(lab.TempDir(t), "tpm")
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+state, "--ctrl", "type=unixio,path="+socket, "--flags", "startup-clear", "--terminate")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p := lab.StartProcess(t, cmd)
	for deadline := time.Now().Add(Patience); !exists(socket); time.Sleep(10 * time.Millisecond) {
		select {
		case <-p.Done:
			t.Fatalf("swtpm ended:\n%s", p.Log)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("swtpm makes no socket:\n%s", p.Log)
		}
	}
	return socket
}

// Guest is a machine that runs, or has run.
type Guest struct {
	*lab.Process
	t      testing.TB
	stdin  io.WriteCloser
	hello  chan struct{}
	answer chan []byte
	conn   net.Conn
	// patience is how long an answer may take, where that is longer than Patience.
	patience time.Duration
}

// Start switches the machine on. With -v the console is shown.
func (m Machine) Start(t testing.TB) *Guest {
	t.Helper()
	Need(t)
	control := filepath.Join(lab.TempDir(t), "control")
	listener, err := net.Listen("unix", control)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	cmd := exec.Command("qemu-system-x86_64", m.arguments(t, control)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	g := &Guest{t: t, stdin: stdin, hello: make(chan struct{}, 16), answer: make(chan []byte, 1)}
	g.Process = lab.StartProcess(t, cmd)
	if testing.Verbose() {
		go show(g.Process)
	}
	go func() { // QEMU connects at once, or ends
		<-g.Done
		_ = listener.Close()
	}()
	if g.conn, err = listener.Accept(); err != nil {
		<-g.Done
		t.Fatalf("QEMU doesn't start:\n%s", g.Log)
	}
	t.Cleanup(func() { _ = g.conn.Close() }) // QEMU is killed with the test anyhow
	go g.receive()
	return g
}

// show copies the console to standard error while it grows.
func show(p *lab.Process) {
	for shown := 0; ; {
		text, grown := p.Log.Look()
		_, _ = os.Stderr.WriteString(text[shown:])
		shown = len(text)
		select {
		case <-grown:
		case <-p.Done:
			text, _ = p.Log.Look()
			_, _ = os.Stderr.WriteString(text[shown:])
			return
		}
	}
}

// On returns the guest as another test's, for its messages.
func (g *Guest) On(t testing.TB) *Guest {
	c := *g
	c.t = t
	return &c
}

// Patient returns the guest for requests whose answers may take longer than Patience.
func (g *Guest) Patient(patience time.Duration) *Guest {
	c := *g
	c.patience = patience
	return &c
}

// Console returns what the guest has said on its serial console so far.
func (g *Guest) Console() string { return g.Log.String() }

// WaitLine waits until the console holds a match, and returns it with its groups.
func (g *Guest) WaitLine(pattern string) []string {
	g.t.Helper()
	re, deadline := regexp.MustCompile("(?m)"+pattern), time.After(Patience)
	for ended := false; ; {
		text, grown := g.Log.Look()
		if found := re.FindStringSubmatch(text); found != nil {
			return found
		}
		if ended {
			g.t.Fatalf("the machine ended, and never said %s:\n%s", pattern, text)
		}
		select {
		case <-grown:
		case <-g.Done:
			ended = true
		case <-deadline:
			g.t.Fatalf("the machine doesn't say %s:\n%s", pattern, text)
		}
	}
}

// Type types on the console.
func (g *Guest) Type(text string) {
	g.t.Helper()
	if _, err := io.WriteString(g.stdin, text); err != nil {
		g.t.Fatal(err)
	}
}

// WaitEnd waits until the machine is off.
func (g *Guest) WaitEnd() {
	g.t.Helper()
	select {
	case <-g.Done:
	case <-time.After(Patience):
		g.t.Fatalf("the machine doesn't end:\n%s", g.Console())
	}
}
