package apply

import (
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/durable/durabletest"
	"github.com/powernode/powernode-agent/internal/fault"
)

const keysPath = "home/web/.ssh/authorized_keys"

func TestKeysOfANewUser(t *testing.T) {
	b := newBox(t, t.TempDir())
	before := b.snapshot()
	change, err := b.open(Options{DryRun: true}).Keys(user(t, "web", "alice", "bob"))
	if err != nil || !change.Changed || len(change.Added) != 2 || b.snapshot() != before {
		t.Errorf("dry: %+v, %v", change, err)
	}
	m := b.open(Options{})
	if change, err := m.Keys(user(t, "web")); err != nil || change.Changed || b.snapshot() != before {
		t.Errorf("no keys for who has none: %+v, %v", change, err)
	}
	change, err = m.Keys(user(t, "web", "alice", "bob"))
	if err != nil || !change.Changed || change.Path != "/home/web/.ssh/authorized_keys" || len(change.Added) != 2 || len(change.Remarks) > 0 {
		t.Fatalf("%+v, %v", change, err)
	}
	if got := b.read(keysPath); got != block(t, "alice", "bob") {
		t.Errorf("%q", got)
	}
	dir, file := b.stat("home/web/.ssh"), b.stat(keysPath)
	for _, st := range []unix.Stat_t{dir, file} {
		if int(st.Uid) != b.uid || int(st.Gid) != b.gid() {
			t.Errorf("owned by %d:%d, want %d:%d", st.Uid, st.Gid, b.uid, b.gid())
		}
	}
	if dir.Mode&0o7777 != 0o700 || file.Mode&0o7777 != 0o600 {
		t.Errorf("modes %o and %o", dir.Mode, file.Mode)
	}
	before = b.snapshot()
	if change, err := m.Keys(user(t, "web", "alice", "bob")); err != nil || change.Changed || b.snapshot() != before {
		t.Errorf("what is right was touched: %+v, %v", change, err)
	}
}

func TestKeysBesideLocalOnes(t *testing.T) {
	b := newBox(t, t.TempDir())
	local := "# mine\r\nssh-ed25519 AAAA local\nno line end \xff"
	b.mkdir("home/web/.ssh", 0o755)
	b.write(keysPath, local, 0o644)
	b.own("home/web/.ssh", keysPath)
	m := b.open(Options{})
	if _, err := m.Keys(user(t, "web", "alice")); err != nil || b.read(keysPath) != local+"\n"+block(t, "alice") {
		t.Fatalf("%v: %q", err, b.read(keysPath))
	}
	if dir, file := b.stat("home/web/.ssh"), b.stat(keysPath); dir.Mode&0o777 != 0o755 || file.Mode&0o777 != 0o644 {
		t.Errorf("modes became %o and %o", dir.Mode, file.Mode)
	}
	change, err := m.Keys(user(t, "web", "bob"))
	if err != nil || b.read(keysPath) != local+"\n"+block(t, "bob") || len(change.Added) != 1 || len(change.Removed) != 1 {
		t.Errorf("%+v, %v", change, err)
	}
	if _, err := m.Keys(user(t, "web")); err != nil || b.read(keysPath) != local+"\n" {
		t.Errorf("%v: %q", err, b.read(keysPath))
	}
}

func TestUnsafePermissionsAreMendedAndSaid(t *testing.T) {
	b := newBox(t, t.TempDir())
	b.mkdir("home/web/.ssh", 0o770)
	b.write(keysPath, block(t, "alice"), 0o666)
	b.own("home/web/.ssh", keysPath)
	before := b.snapshot()
	if change, err := b.open(Options{DryRun: true}).Keys(user(t, "web", "alice")); err != nil || !change.Changed || len(change.Remarks) != 2 || b.snapshot() != before {
		t.Errorf("dry: %+v, %v", change, err)
	}
	change, err := b.open(Options{}).Keys(user(t, "web", "alice"))
	if err != nil || !change.Changed || len(change.Remarks) != 2 {
		t.Errorf("%+v, %v", change, err)
	}
	if dir, file := b.stat("home/web/.ssh"), b.stat(keysPath); dir.Mode&0o7777 != 0o750 || file.Mode&0o7777 != 0o644 {
		t.Errorf("modes %o and %o", dir.Mode, file.Mode)
	}
	b.must(os.Chmod(b.path(keysPath), 0o602))
	b.must(os.Chmod(b.path("home/web"), 0o777))
	change, err = b.open(Options{}).Keys(user(t, "web", "bob"))
	if err != nil || b.stat(keysPath).Mode&0o777 != 0o600 || len(change.Remarks) != 2 || b.stat("home/web").Mode&0o777 != 0o777 {
		t.Errorf("%+v, %v", change, err)
	}
}

// TestHostileHomes: each of these is refused, and changes nothing anywhere.
// TestSweepIsBounded: what a user put into .ssh under the names of temporary files costs a change no time.
func TestSweepIsBounded(t *testing.T) {
	b := newBox(t, t.TempDir())
	b.mkdir("home/web/.ssh", 0o700)
	b.mkdir("home/web/.ssh/.durable-deep/a/b/c", 0o700)
	b.write("home/web/.ssh/.durable-left", "half a file", 0o600)
	b.own("home/web/.ssh", "home/web/.ssh/.durable-left")
	change, err := b.open(Options{}).Keys(user(t, "web", "alice"))
	if err != nil || !change.Changed {
		t.Fatalf("%+v, %v", change, err)
	}
	if _, err := os.Stat(b.path("home/web/.ssh/.durable-left")); !os.IsNotExist(err) {
		t.Errorf("what a kill left: %v", err)
	}
	if _, err := os.Stat(b.path("home/web/.ssh/.durable-deep/a/b/c")); err != nil {
		t.Errorf("a directory of the user's: %v", err)
	}
}

func TestHostileHomes(t *testing.T) {
	for _, c := range []struct {
		name  string
		root  bool // needs other users
		setup func(b *box)
		user  string
		want  string
	}{
		{name: "no such user", user: "nobody-here", want: "no user"},
		{name: "no home", user: "noone", want: "isn't there"},
		{name: ".ssh is a link", want: "symbolic link", setup: func(b *box) {
			b.mkdir("outside", 0o755)
			b.own("outside")
			b.must(os.Symlink("../../outside", b.path("home/web/.ssh")))
		}},
		{name: ".ssh is a file", want: "isn't a directory", setup: func(b *box) {
			b.write("home/web/.ssh", "x", 0o600)
			b.own("home/web/.ssh")
		}},
		{name: "the file is a link", want: "symbolic link", setup: func(b *box) {
			b.mkdir("home/web/.ssh", 0o700)
			b.write("outside", "x", 0o666)
			b.must(os.Symlink(b.path("outside"), b.path(keysPath)))
			b.own("home/web/.ssh", keysPath)
		}},
		{name: "a FIFO", want: "not a regular file", setup: func(b *box) {
			b.mkdir("home/web/.ssh", 0o700)
			b.must(unix.Mkfifo(b.path(keysPath), 0o600))
			b.own("home/web/.ssh", keysPath)
		}},
		{name: "a directory", want: "not a regular file", setup: func(b *box) {
			b.mkdir(keysPath, 0o700)
			b.own("home/web/.ssh", keysPath)
		}},
		{name: "a hard link", want: "hard link", setup: func(b *box) {
			b.mkdir("home/web/.ssh", 0o700)
			b.write("home/web/other", "secret", 0o644)
			b.must(os.Link(b.path("home/web/other"), b.path(keysPath)))
			b.own("home/web/.ssh", keysPath)
		}},
		{name: "a huge file", want: "more than", setup: func(b *box) {
			b.mkdir("home/web/.ssh", 0o700)
			b.write(keysPath, "", 0o600)
			b.must(os.Truncate(b.path(keysPath), 1<<40))
			b.own("home/web/.ssh", keysPath)
		}},
		{name: "half a block", want: "one pair", setup: func(b *box) {
			b.mkdir("home/web/.ssh", 0o700)
			b.write(keysPath, "# BEGIN powernode\nssh-ed25519 AAAA\n", 0o600)
			b.own("home/web/.ssh", keysPath)
		}},
		{name: ".ssh of another user", root: true, want: "belongs to user ID 999", setup: func(b *box) {
			b.mkdir("home/web/.ssh", 0o777)
			b.must(os.Chown(b.path("home/web/.ssh"), 999, 999))
		}},
		{name: "the file of another user", root: true, want: "belongs to user ID 999", setup: func(b *box) {
			b.mkdir("home/web/.ssh", 0o700)
			b.write(keysPath, "x", 0o666)
			b.own("home/web/.ssh")
			b.must(os.Chown(b.path(keysPath), 999, 999))
		}},
		{name: "a file that the user can't read", root: true, want: "may not do this", setup: func(b *box) {
			b.mkdir("home/web/.ssh", 0o700)
			b.write(keysPath, "secret", 0o600)
			b.own("home/web/.ssh")
		}},
		{name: "root's .ssh in the user's home", root: true, want: "may not do this", setup: func(b *box) {
			b.mkdir("home/web/.ssh", 0o755)
		}},
		{name: "root's home and no .ssh", root: true, want: "may not do this", setup: func(b *box) {
			b.must(os.Chown(b.path("home/web"), 0, 0))
		}},
		{name: "another user's home", root: true, want: "belongs to user ID 999", setup: func(b *box) {
			b.must(os.Chown(b.path("home/web"), 999, 999))
		}},
		{name: "a home in another user's", root: true, want: "belongs to user ID 999", setup: func(b *box) {
			b.must(os.Chown(b.path("home"), 999, 999))
		}},
		{name: "a home where all may write", want: "can be written by others", setup: func(b *box) {
			b.must(os.Chmod(b.path("home"), 0o777))
		}},
		{name: "a home by another user's link", root: true, want: "isn't root's", setup: func(b *box) {
			b.must(os.Rename(b.path("home/web"), b.path("home/real")))
			b.must(os.Symlink("real", b.path("home/web")))
			b.must(os.Lchown(b.path("home/web"), 999, 999))
		}},
		{name: "a home in a ring of links", want: "too many levels", setup: func(b *box) {
			b.must(os.Rename(b.path("home/web"), b.path("home/real")))
			b.must(os.Symlink("web", b.path("home/web")))
		}},
		{name: "a home that is a file", want: "isn't a directory", setup: func(b *box) {
			b.must(os.Remove(b.path("home/web")))
			b.write("home/web", "x", 0o644)
		}},
		{name: "a home that leads above the root", want: "is the root directory", setup: func(b *box) {
			b.must(os.Remove(b.path("home/web")))
			b.must(os.Symlink("../../../..", b.path("home/web")))
		}},
		{name: "passwd is a link", want: "symbolic link", setup: func(b *box) {
			b.must(os.Rename(b.path("etc/passwd"), b.path("etc/real")))
			b.must(os.Symlink("real", b.path("etc/passwd")))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.root && os.Geteuid() != 0 {
				t.Skip("only root makes files of other users")
			}
			b := newBox(t, t.TempDir())
			if c.setup != nil {
				c.setup(b)
			}
			name := c.user
			if name == "" {
				name = "web"
			}
			before := b.snapshot()
			for _, dry := range []bool{true, false} {
				change, err := b.open(Options{DryRun: dry}).Keys(user(t, name, "alice"))
				if dry && err == nil && strings.HasPrefix(c.name, "root's") {
					continue // a dry run doesn't try
				}
				if err == nil || !strings.Contains(err.Error(), c.want) || change.Changed {
					t.Errorf("dry %v: %+v, %v", dry, change, err)
				}
				if fault.KindOf(err) != fault.Refuse && c.want != "not a regular file" && c.want != "too many levels" {
					t.Errorf("%v is of kind %v", err, fault.KindOf(err))
				}
				if b.snapshot() != before {
					t.Errorf("dry %v: something changed", dry)
				}
			}
		})
	}
}

func TestHomesByLinksOfRoot(t *testing.T) {
	b := newBox(t, t.TempDir())
	b.mkdir("var", 0o755)
	b.must(os.Rename(b.path("home"), b.path("var/home")))
	b.must(os.Symlink("../../../var/home", b.path("home")))
	if _, err := b.open(Options{}).Keys(user(t, "web", "alice")); err != nil || b.read("var/"+keysPath) != block(t, "alice") {
		t.Error(err)
	}
	if _, err := b.open(Options{}).Keys(user(t, "root", "alice")); err != nil || b.read("root/.ssh/authorized_keys") != block(t, "alice") {
		t.Error(err)
	}
}

// TestSwapWhileWriting has a user exchange ~/.ssh, and the file in it, for links to elsewhere, over and
// over, while keys are written. Elsewhere nothing may change: not even what is the user's own, as a
// mistake there would be one for root's home, too.
func TestSwapWhileWriting(t *testing.T) {
	for _, name := range []string{"web", "root"} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, t.TempDir())
			home := map[string]string{"web": "home/web", "root": "root"}[name]
			own := func(path string) {
				if name == "web" {
					b.own(path)
				}
			}
			for _, path := range []string{home + "/real", home + "/second", "outside"} {
				b.mkdir(path, 0o700)
				own(path)
			}
			b.write("outside/authorized_keys", "elsewhere\n", 0o600)
			b.write("outside/target", "elsewhere\n", 0o600)
			own("outside/authorized_keys")
			own("outside/target")
			b.must(os.Symlink(b.path("outside"), b.path(home+"/link")))
			b.must(os.Symlink(b.path("outside/target"), b.path(home+"/file")))
			before := b.stat("outside")
			stop := make(chan struct{})
			var swapping sync.WaitGroup
			// By descriptors: a path would lead the one who swaps elsewhere, too.
			at := func(name string) int {
				fd, err := unix.Open(b.path(home+"/"+name), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
				b.must(err)
				t.Cleanup(func() { unix.Close(fd) })
				return fd
			}
			in, real, second := at("."), at("real"), at("second")
			b.must(os.Rename(b.path(home+"/second"), b.path(home+"/.ssh")))
			swapping.Go(func() {
				swap := func(a int, aName string, c int, cName string) {
					_ = unix.Renameat2(a, aName, c, cName, unix.RENAME_EXCHANGE)
				}
				for {
					select {
					case <-stop:
						return
					default:
					}
					swap(in, ".ssh", in, "link")
					swap(in, ".ssh", in, "real")
					swap(real, keysName, in, "file")
					swap(second, keysName, in, "file")
				}
			})
			m, done := b.open(Options{}), 0
			for i := range 400 {
				if _, err := m.Keys(user(t, name, []string{"alice", "bob"}[i%2])); err == nil {
					done++
				}
			}
			close(stop)
			swapping.Wait()
			after := b.stat("outside")
			if before.Mtim != after.Mtim || before.Mode != after.Mode || before.Ino != after.Ino || before.Uid != after.Uid {
				t.Error("the directory elsewhere changed")
			}
			for _, path := range []string{"outside/authorized_keys", "outside/target"} {
				if got := b.read(path); got != "elsewhere\n" {
					t.Errorf("%s holds %q", path, got)
				}
			}
			t.Logf("%d of 400 were written", done)
		})
	}
}

// TestFaults: with a failure or a kill at each step, the file is the old one or the new one, and the next
// run comes to the new one.
func TestFaults(t *testing.T) {
	local := "ssh-ed25519 AAAA local\n"
	for _, fresh := range []bool{true, false} {
		scenario := durabletest.Scenario{
			Setup: func(t testing.TB, dir string) {
				b := newBox(t, dir)
				if !fresh {
					b.mkdir("home/web/.ssh", 0o700)
					b.write(keysPath, local, 0o600)
					b.own("home/web/.ssh", keysPath)
				}
			},
			Run: func(dir string, hook durable.Hook) error {
				m, err := Open(dir, Options{Hook: hook})
				if err != nil {
					return err
				}
				defer m.Close()
				_, err = m.Keys(user(t, "web", "alice"))
				return err
			},
			Check: func(t testing.TB, dir, op string, _ error) {
				b := newBoxAt(t, dir)
				was, want := local, local+block(t, "alice")
				if fresh {
					was, want = "", block(t, "alice")
				}
				data, err := os.ReadFile(b.path(keysPath))
				if err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
				if got := string(data); got != want && (op == "" || got != was) {
					t.Errorf("after a fault at %q: %q", op, got)
				}
				if _, err := b.open(Options{}).Keys(user(t, "web", "alice")); err != nil || b.read(keysPath) != want {
					t.Errorf("the next run: %v", err)
				}
				names, err := os.ReadDir(b.path("home/web/.ssh"))
				if err != nil || len(names) > 2 {
					t.Errorf("left behind: %v, %v", names, err)
				}
			},
		}
		t.Run(map[bool]string{true: "new", false: "replaced"}[fresh], func(t *testing.T) {
			t.Run("ENOSPC", func(t *testing.T) { scenario.FailEach(t, unix.ENOSPC) })
			t.Run("kill", scenario.KillEach)
		})
	}
}

// newBoxAt is a box that was made before.
func newBoxAt(t testing.TB, dir string) *box {
	t.Helper()
	b := &box{t: t, root: dir, uid: os.Geteuid()}
	if b.uid == 0 {
		b.uid = 12345
	}
	return b
}
