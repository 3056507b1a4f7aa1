package apply

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks bounds the symbolic links on the way to a home, as the kernel does.
const maxLinks = 40

// step is a directory on the way to a home.
type step struct {
	file *os.File
	path string
}

// openHome opens a user's home, with our rights. On the way there it goes through directories of root's or the
// user's own only, in which nobody else can put another in their place, and through links of root's, as
// from /home to /var/home. So no third user leads anywhere.
func (m *Machine) openHome(a account) (*os.File, error) {
	if a.home == "" || !strings.HasPrefix(a.home, "/") || a.home == "/" {
		return nil, refuse("give the user a home", "the home of user %s is %q in /etc/passwd, which can't hold keys", a.name, a.home)
	}
	steps := []step{{m.root, "/"}}
	defer func() {
		for _, s := range steps[1:] {
			s.file.Close()
		}
	}()
	rest := strings.Split(strings.TrimPrefix(a.home, "/"), "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		here := steps[len(steps)-1]
		switch name {
		case "", ".":
			continue
		case "..":
			if len(steps) > 1 {
				here.file.Close()
				steps = steps[:len(steps)-1]
			}
			continue
		}
		where := path.Join(here.path, name)
		next, stat, err := look(here.file, name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, refuse("make the home, or bring it with a module", "the home of user %s isn't there: %s is missing", a.name, where)
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: where, Err: err}
		}
		steps = append(steps, step{next, where})
		if stat.Mode&unix.S_IFMT == unix.S_IFLNK {
			steps = steps[:len(steps)-1]
			target, err := readLink(next, stat, where)
			next.Close()
			if links++; err == nil && links > maxLinks {
				err = &fs.PathError{Op: "open", Path: where, Err: unix.ELOOP}
			}
			if err != nil {
				return nil, err
			}
			if strings.HasPrefix(target, "/") {
				for _, s := range steps[1:] {
					s.file.Close()
				}
				steps = steps[:1]
			}
			rest = append(strings.Split(target, "/"), rest...)
			continue
		}
		if err := checkStep(stat, a, where, len(rest) == 0); err != nil {
			return nil, err
		}
	}
	last := steps[len(steps)-1]
	if len(steps) == 1 {
		return nil, refuse("give the user a home", "the home of user %s is the root directory", a.name)
	}
	// O_PATH was enough to look; to work there takes a descriptor of its own.
	home, err := openat2(last.file, ".", unix.O_RDONLY|unix.O_DIRECTORY, unix.RESOLVE_BENEATH)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: last.path, Err: err}
	}
	return home, nil
}

// look opens one name as it is, a link too.
func look(dir *os.File, name string) (*os.File, unix.Stat_t, error) {
	var stat unix.Stat_t
	f, err := openat2(dir, name, unix.O_PATH|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return nil, stat, err
	}
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		f.Close()
		return nil, stat, err
	}
	return f, stat, nil
}

// readLink returns where a link leads, if it is root's.
func readLink(link *os.File, stat unix.Stat_t, where string) (string, error) {
	if stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
		return "", refuse("put the directory itself there", "%s is a symbolic link that isn't root's", where)
	}
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(link.Fd()), "", target)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: where, Err: err}
	}
	return string(target[:n]), nil
}

// checkStep refuses a directory by which another user could lead us elsewhere.
func checkStep(stat unix.Stat_t, a account, where string, last bool) error {
	switch {
	case stat.Mode&unix.S_IFMT != unix.S_IFDIR:
		return refuse("put a directory there", "%s, on the way to the home of user %s, isn't a directory", where, a.name)
	case stat.Uid != 0 && int(stat.Uid) != a.uid && int(stat.Uid) != os.Geteuid():
		return refuse("make it the user's", "%s belongs to user ID %d, and not to %s or root", where, stat.Uid, a.name)
	case !last && stat.Mode&0o022 != 0 && stat.Mode&unix.S_ISVTX == 0:
		return refuse("take the right to write from others", "%s, on the way to the home of user %s, can be written by others", where, a.name)
	}
	return nil
}
