package change

import (
	"errors"
	"fmt"
	"os"
	"slices"
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
	// atWork is held from the look before a change to the note of it.
	atWork sync.Mutex
	mu     sync.Mutex
	// modes are the files whose mode was changed, moved the directories that were renamed.
	modes, moved []int
	fails        []string
	// seen is the content of each: as it was directly before and after it was changed, or, where the root changed between the two, when it was
	// first looked at between two changes.
	seen map[string]string
	// looked are those that were looked at since; late is how many were changed over the new root and count as changed over the old one.
	looked map[string]bool
	late   int
}

// A directory is renamed with every renamesOf-th file: one that is renamed in the moment of a swap has that go back and try again.
const touched, renamesOf = 600, 10

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
		u.touchOne(i)
	}
}

func (u *toucher) touchOne(i int) {
	u.atWork.Lock()
	defer u.atWork.Unlock()
	was, wasMoved := u.content(u.file(i)), u.content(u.dir(i)+"/f")
	chmod := os.Chmod(u.in(u.file(i)), 0o600)
	is := u.content(u.file(i))
	u.did(&u.modes, i, u.file(i), was, is, chmod)
	if i%renamesOf != 0 {
		return
	}
	move := os.Rename(u.in(u.dir(i)), u.in(u.dir(i)+"-moved"))
	for range 5 {
		// Its two paths were looked up in two trees.
		if !errors.Is(move, unix.EXDEV) {
			break
		}
		move = os.Rename(u.in(u.dir(i)), u.in(u.dir(i)+"-moved"))
	}
	isMoved := u.content(u.dir(i) + "-moved/f")
	u.did(&u.moved, i, u.dir(i)+"-moved/f", wasMoved, isMoved, move)
}

// did notes a change, and what the file read before and after it.
func (u *toucher) did(which *[]int, i int, path, was, is string, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if was == is {
		u.seen[path] = is
	}
	if err != nil {
		u.fails = append(u.fails, fmt.Sprintf("%s: %v", path, err))
	}
	*which = append(*which, i)
}

// content returns what a file reads, or why it doesn't.
func (u *toucher) content(path string) string {
	b, err := os.ReadFile(u.in(path))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// check looks, between two changes, at what was changed so far. now is what the image has that the root changed to: what
// was changed directly after that can't be told from what was changed directly before, and is made to be what the old image had. Never does what was changed over the old one become what the new one has.
func (u *toucher) check(contents []string, now string) {
	u.Helper()
	u.atWork.Lock() // what was begun before the root changed is noted by then: now is of this change
	u.mu.Lock()
	modes, moved := u.modes, u.moved
	u.mu.Unlock()
	u.atWork.Unlock()
	is := func(path string) {
		u.Helper()
		content := u.content(path)
		if content != contents[0] && content != contents[1] {
			u.Errorf("%s reads %.200q (%d bytes)", path, content, len(content))
			return
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		first, known := u.seen[path]
		switch {
		case !known || first == content:
		case !u.looked[path] && first == now:
			u.late++
		default:
			u.Errorf("%s was changed here, and doesn't stay what it is: it has %d bytes, and had %d", path, len(content), len(first))
		}
		u.seen[path], u.looked[path] = content, true
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
	u := &toucher{mounted: m, seen: make(map[string]string), looked: make(map[string]bool)}
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
			remarks, err = machine.Swap(t.Context(), s, Findings{})
		}
		again += len(remarks)
		if err != nil || slices.ContainsFunc(remarks, func(r string) bool { return !inTheMoment(r) }) {
			t.Errorf("cycle %d: %q, %v", cycle, remarks, err)
			break
		}
		if _, err := machine.Finish(t.Context()); err != nil {
			t.Errorf("cycle %d: %v", cycle, err)
		}
		u.check(contents, contents[(cycle+1)%2])
		from, to = to, from
	}
	close(stop)
	running.Wait()
	u.check(contents, "")
	if len(u.fails) > 0 {
		t.Errorf("%d of %d changes failed: %q", len(u.fails), len(u.modes), u.fails[:min(4, len(u.fails))])
	}
	t.Logf("%d files and directories were changed, %d of them directly after a swap; the change was tried again %d times", len(u.modes), u.late, again)
}
