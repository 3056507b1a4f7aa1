package change

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/rootfs"
)

// toucher changes files and directories of the image, each once, while the root changes: what it changed stays what it is.
type toucher struct {
	*mounted
	mu sync.Mutex
	// modes are the files whose mode was changed, moved the directories that were renamed.
	modes, moved []int
	fails        []string
	// seen is the content of each when it was first looked at, between two changes.
	seen map[string]string
}

const touched = 600

func (u *toucher) file(i int) string { return fmt.Sprintf("usr/files/%03d/f", i) }
func (u *toucher) dir(i int) string  { return fmt.Sprintf("usr/dirs/%03d", i) }

// touch goes on until it is stopped, or everything is changed.
func (u *toucher) touch(stop chan struct{}) {
	for i := range touched {
		select {
		case <-stop:
			return
		case <-time.After(2 * time.Millisecond):
		}
		chmod := os.Chmod(u.in(u.file(i)), 0o600)
		move := os.Rename(u.in(u.dir(i)), u.in(u.dir(i)+"-moved"))
		for range 5 {
			// Its two paths were looked up in two trees.
			if !errors.Is(move, unix.EXDEV) {
				break
			}
			move = os.Rename(u.in(u.dir(i)), u.in(u.dir(i)+"-moved"))
		}
		u.mu.Lock()
		if chmod != nil || move != nil {
			u.fails = append(u.fails, fmt.Sprintf("%d: %v, %v", i, chmod, move))
		}
		u.modes, u.moved = append(u.modes, i), append(u.moved, i)
		u.mu.Unlock()
	}
}

// check looks, between two changes, at what was changed so far.
func (u *toucher) check(contents []string) {
	u.Helper()
	u.mu.Lock()
	modes, moved := u.modes, u.moved
	u.mu.Unlock()
	is := func(path string) {
		u.Helper()
		b, err := os.ReadFile(u.in(path))
		content := string(b)
		if err != nil || content != contents[0] && content != contents[1] {
			u.Errorf("%s reads %.10q (%d bytes), %v", path, content, len(content), err)
			return
		}
		if first, known := u.seen[path]; known && first != content {
			u.Errorf("%s was changed here, and doesn't stay what it is: it has %d bytes, and had %d", path, len(content), len(first))
		}
		u.seen[path] = content
	}
	for _, i := range modes {
		is(u.file(i))
		if info, err := os.Stat(u.in(u.file(i))); err != nil || info.Mode().Perm() != 0o600 {
			u.Errorf("%s: %v, %v", u.file(i), info, err)
		}
	}
	for _, i := range moved {
		is(u.dir(i) + "-moved/f")
		if _, err := os.Lstat(u.in(u.dir(i))); !errors.Is(err, os.ErrNotExist) {
			u.Errorf("%s was renamed, and is there again: %v", u.dir(i), err)
		}
	}
}

// TestFilesOfTheImageAreChangedWhileItChanges: modes of the image's files are changed and its directories renamed, without a pause, while the
// root goes from one image to another and back.
func TestFilesOfTheImageAreChangedWhileItChanges(t *testing.T) {
	m := newMounted(t)
	contents := []string{strings.Repeat("a", 9000), strings.Repeat("b", 9500)}
	images := make([]map[string]string, 2)
	u := &toucher{mounted: m, seen: make(map[string]string)}
	for i := range images {
		images[i] = make(map[string]string)
		for k := range touched {
			images[i][u.file(k)], images[i][u.dir(k)+"/f"] = contents[i], contents[i]
		}
	}
	from, to := m.generation(images[0], nil), m.generation(images[1], nil)
	m.boot(from, rootfs.Ephemeral)
	machine, stop := m.machine(), make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() { u.touch(stop) })
	again := 0
	for cycle := range 20 {
		s := m.step(from, to)
		remarks, err := machine.Swap(t.Context(), s, Findings{})
		for range 5 {
			if !errors.Is(err, errMeanwhile) {
				break
			}
			again++
			remarks, err = machine.Swap(t.Context(), s, Findings{})
		}
		if err != nil || len(remarks) > 0 {
			t.Errorf("cycle %d: %q, %v", cycle, remarks, err)
			break
		}
		if _, err := machine.Finish(t.Context()); err != nil {
			t.Errorf("cycle %d: %v", cycle, err)
		}
		u.check(contents)
		from, to = to, from
	}
	close(stop)
	running.Wait()
	u.check(contents)
	if len(u.fails) > 0 {
		t.Errorf("%d of %d changes failed: %q", len(u.fails), len(u.modes), u.fails[:min(4, len(u.fails))])
	}
	t.Logf("%d files and directories were changed; the change was tried again %d times", len(u.modes), again)
}
