package switchroot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
)

// interpreters bounds how many programs a script may go through to be run, as the kernel does
// (fs/exec.c gives up with ELOOP after five).
const interpreters = 5

// CheckInit reports why init, an absolute path inside the root, couldn't be run once the root is
// "/": it is missing, no executable file, made for another architecture, or the loader or
// interpreter that it names is so. Links are resolved inside the root. nil means that execve(2)
// should succeed.
func (r *Root) CheckInit(init string) error { return CheckProgram(r.dir, init) }

// CheckProgram is CheckInit for any directory that is going to be a root, mounted or not.
func CheckProgram(root *os.File, name string) error {
	return checkProgram(root, name, runtime.GOARCH, 0)
}

func checkProgram(root *os.File, name, arch string, depth int) error {
	if depth > interpreters {
		return refuse("%s: more than %d interpreters call each other", name, interpreters)
	}
	f, err := openProgram(root, name)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, 256) // BINPRM_BUF_SIZE: a script's first line counts up to here
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s in the new root: %w", name, err)
	}
	head = head[:n]
	var interpreter string
	switch {
	case bytes.HasPrefix(head, []byte(elfMagic)):
		interpreter, err = readELF(f, arch)
	case bytes.HasPrefix(head, []byte("#!")):
		interpreter, err = scriptInterpreter(head)
	default:
		err = errors.New("it is neither an ELF program nor a script")
	}
	if err != nil {
		return refuse("%s can't be run: %w", name, err)
	}
	if interpreter == "" {
		return nil
	}
	if err := checkProgram(root, interpreter, arch, depth+1); err != nil {
		return refuse("%s needs %s: %w", name, interpreter, err)
	}
	return nil
}

// refuse gives the hint once: the outermost refusal's counts.
func refuse(format string, args ...any) error {
	return fault.New(fault.Refuse, fault.Mount,
		"assign a module that ships a working init for this architecture, such as system-base", format, args...)
}

// openProgram opens name for reading if it is an executable regular file. It looks before it
// opens, because opening a device or a pipe does something.
func openProgram(root *os.File, name string) (*os.File, error) {
	if !path.IsAbs(name) {
		return nil, refuse("%q is not an absolute path", name)
	}
	fd, err := openInRoot(root, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, refuse("the new root has no %s: %w", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s in the new root: %w", name, err)
	}
	place := os.NewFile(uintptr(fd), name)
	defer place.Close()
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return nil, fmt.Errorf("look at %s in the new root: %w", name, err)
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG || stat.Mode&0o111 == 0 {
		return nil, refuse("%s in the new root is not an executable file", name)
	}
	f, err := os.Open("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return nil, fmt.Errorf("open %s in the new root: %w", name, err)
	}
	return f, nil
}

// openInRoot resolves name as if root were "/". A ".." that meets a rename or a mount anywhere on
// the machine gives EAGAIN: the kernel couldn't be sure (openat2(2)).
func openInRoot(root *os.File, name string) (fd int, err error) {
	defer runtime.KeepAlive(root)
	for range 100 {
		fd, err = unix.Openat2(int(root.Fd()), name, &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
		})
		if !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return fd, err
}

// scriptInterpreter returns the program that a "#!" line names.
func scriptInterpreter(head []byte) (string, error) {
	line, _, whole := bytes.Cut(head[len("#!"):], []byte("\n"))
	fields := bytes.Fields(line)
	if len(fields) == 0 {
		return "", errors.New("its first line names no interpreter")
	}
	if !whole && len(fields) == 1 && len(head) == cap(head) {
		return "", errors.New("its first line is too long")
	}
	return string(fields[0]), nil
}
