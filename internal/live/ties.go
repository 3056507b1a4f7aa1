package live

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/mount"
)

// TieKind is what binds a process to the tree in which it began it.
type TieKind string

// The kinds. The kernel keeps each of them by the inode, of which the old and the new union have one each for the same file.
const (
	// LockTie is a lock of a file (flock, fcntl, open file description): in the new tree it is free for somebody else.
	LockTie TieKind = "lock"
	// SocketTie is a Unix socket that is listened on: by its name in the new tree nobody answers.
	SocketTie TieKind = "socket"
	// FIFOTie is an open FIFO: who opens it in the new tree doesn't meet who has it open.
	FIFOTie TieKind = "fifo"
)

// Tie is something that a process began in a directory and that doesn't cross over to the tree which takes its place.
type Tie struct {
	Kind TieKind `json:"kind"`
	// Path is the file, from the root that runs.
	Path    string `json:"path"`
	PID     int    `json:"pid"`
	Command string `json:"command"`
	// Unit is the systemd unit that the process belongs to, "" for none.
	Unit string `json:"unit,omitempty"`
}

// String says it to a person.
func (t Tie) String() string {
	what := map[TieKind]string{LockTie: "holds a lock of", SocketTie: "listens on", FIFOTie: "has the FIFO open at"}[t.Kind]
	by := fmt.Sprintf("process %d %s", t.PID, t.Command)
	if t.Unit != "" {
		by += " of " + t.Unit
	}
	return fmt.Sprintf("%s %s %s", by, what, t.Path)
}

// Ties finds what processes hold in top-level directories of the root that runs at a place, and what would not cross over if
// those were replaced. FIFOs are looked for only if it is said that there may be some. What isn't seen: sockets in other network namespaces, and
// processes that end meanwhile.
func Ties(place Place, directories []string, fifos bool) ([]Tie, error) {
	if len(directories) == 0 {
		return nil, nil
	}
	base, err := mount.UnionAt(place.Root)
	if err != nil {
		return nil, err
	}
	table, err := mount.ReadTable()
	if err != nil {
		return nil, err
	}
	w := &work{spec: Spec{Place: place}, base: base}
	s := tieScan{fifos: fifos, sockets: make(map[uint64]string), devices: make(map[string]bool)}
	for _, name := range directories {
		s.dirs = append(s.dirs, w.path(name))
		seen := (&replacement{stack: w.stack(table, name)}).seen(base).ID
		s.devices[fmt.Sprintf("%02x:%02x", seen.Major, seen.Minor)] = true
	}
	if err := s.kernelTables("/proc"); err != nil {
		return nil, err
	}
	if !s.locks && !s.fifos && len(s.sockets) == 0 {
		return nil, nil
	}
	if err := s.processes("/proc"); err != nil {
		return nil, err
	}
	for i := range s.ties {
		s.ties[i].Path = "/" + w.below(s.ties[i].Path)
	}
	slices.SortFunc(s.ties, func(a, b Tie) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.PID, b.PID))
	})
	return slices.Compact(s.ties), nil
}

// tieScan looks for what binds processes.
type tieScan struct {
	dirs []string
	// devices are those of the unions that are seen there, as the kernel writes them in its lists of locks.
	devices map[string]bool
	locks   bool
	// sockets are those that are listened on, by inode.
	sockets map[uint64]string
	fifos   bool
	ties    []Tie
}

// tablesMax bounds what is read of a list of the kernel.
const tablesMax = 16 << 20

// kernelTables reads which locks and sockets there are at all, which is soon done.
func (s *tieScan) kernelTables(proc string) error {
	err := lines(filepath.Join(proc, "locks"), func(line string) { s.locks = s.locks || s.isLock(strings.Fields(line)) })
	if err != nil {
		return err
	}
	// The kernel may be without Unix sockets.
	err = lines(filepath.Join(proc, "net/unix"), func(line string) {
		if inode, path, ok := listening(line); ok && s.inside(path) && isSocket(path) {
			s.sockets[inode] = path
		}
	})
	if os.IsNotExist(err) {
		err = nil
	}
	return err
}

func lines(path string, each func(string)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	scanner := bufio.NewScanner(io.LimitReader(f, tablesMax))
	for scanner.Scan() {
		each(scanner.Text())
	}
	return scanner.Err()
}

// isLock reports whether a line of /proc/locks, or of a process's fdinfo, is a lock of a file there (proc_locks(5)): number, class, mode,
// access, process, device:inode, from, to. A lease is no lock, and "->" is one that somebody waits for.
func (s *tieScan) isLock(fields []string) bool {
	if len(fields) < 6 || !slices.Contains([]string{"POSIX", "FLOCK", "OFDLCK"}, fields[1]) {
		return false
	}
	i := strings.LastIndexByte(fields[5], ':')
	return i > 0 && s.devices[fields[5][:i]]
}

// listening reads a line of /proc/net/unix (proc_net_unix(5)): address, references, protocol, flags, type, state, inode, path. It is
// of a socket that others connect or send to: one that listens, or one of datagrams that has a name and no peer.
func listening(line string) (inode uint64, path string, ok bool) {
	var fields [7]string
	for i := range fields {
		fields[i], line, _ = strings.Cut(strings.TrimLeft(line, " "), " ")
	}
	path = line // as it is: it may have spaces, also several in a row
	if !strings.HasPrefix(path, "/") {
		return 0, "", false
	}
	const accepts = 0x10000 // __SO_ACCEPTCON
	flags, err := strconv.ParseUint(fields[3], 16, 32)
	if err != nil || flags&accepts == 0 && fields[4] != "0002" {
		return 0, "", false
	}
	inode, err = strconv.ParseUint(fields[6], 10, 64)
	return inode, path, err == nil
}

func isSocket(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&os.ModeSocket != 0
}

func (s *tieScan) inside(path string) bool {
	return slices.ContainsFunc(s.dirs, func(dir string) bool { return below(path, dir) })
}

// processes finds out who holds them.
func (s *tieScan) processes(proc string) error {
	dir, err := os.Open(proc)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			s.process(pid, filepath.Join(proc, name))
		}
	}
	return nil
}

// process looks at one process, which may end meanwhile.
func (s *tieScan) process(pid int, process string) {
	dir, err := os.Open(process + "/fd")
	if err != nil {
		return
	}
	defer dir.Close()
	fds, _ := dir.Readdirnames(-1) // what could be read counts
	for _, fd := range fds {
		link, err := os.Readlink(process + "/fd/" + fd)
		if err != nil {
			continue
		}
		kind, path := s.tied(process, fd, link)
		if kind == "" {
			continue
		}
		n := Namespace{}
		n.add(pid, process)
		t := Tie{Kind: kind, Path: path, PID: pid, Command: strings.Join(n.Commands, "")}
		if len(n.Units) > 0 {
			t.Unit = n.Units[0]
		}
		s.ties = append(s.ties, t)
	}
}

// tied says what an open file ties its process to.
func (s *tieScan) tied(process, fd, link string) (TieKind, string) {
	if inode, ok := strings.CutPrefix(link, "socket:["); ok {
		n, err := strconv.ParseUint(strings.TrimSuffix(inode, "]"), 10, 64)
		if path, listens := s.sockets[n]; err == nil && listens {
			return SocketTie, path
		}
		return "", ""
	}
	if !s.inside(link) || strings.HasSuffix(link, " (deleted)") {
		return "", ""
	}
	var stat unix.Stat_t
	if s.fifos && unix.Stat(process+"/fd/"+fd, &stat) == nil && stat.Mode&unix.S_IFMT == unix.S_IFIFO {
		return FIFOTie, link
	}
	if s.locks {
		info, err := os.ReadFile(process + "/fdinfo/" + fd)
		if err != nil {
			return "", ""
		}
		for line := range bytes.Lines(info) {
			if rest, ok := bytes.CutPrefix(line, []byte("lock:")); ok && s.isLock(strings.Fields(string(rest))) {
				return LockTie, link
			}
		}
	}
	return "", ""
}
