package apply

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// asUser runs do with what a user may do on file systems: their IDs, none of our groups, and none of root's
// capabilities to pass over permissions, which end with the user ID (capabilities(7), "Effect of user ID
// changes"). It is on a thread of its own, which ends with it. For the user that we are it changes nothing.
func asUser(a account, do func() error) error {
	if a.uid == os.Geteuid() {
		return do()
	}
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the runtime ends the thread together with the goroutine, and starts none from it.
		runtime.LockOSThread()
		err := become(a)
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}

// become changes the thread. The calls of package unix are about the calling thread alone, other than those
// of package syscall.
func become(a account) error {
	if err := unix.Setgroups([]int{a.gid}); err != nil {
		return fmt.Errorf("work as user %s: leave the groups: %w", a.name, err)
	}
	for _, set := range []struct {
		what string
		id   int
		do   func(int) (int, error)
	}{{"group", a.gid, unix.SetfsgidRetGid}, {"user", a.uid, unix.SetfsuidRetUid}} {
		if _, err := set.do(set.id); err != nil {
			return fmt.Errorf("work as user %s: %w", a.name, err)
		}
		// The call reports no failure; asked for an ID that isn't one, it says what is in force.
		now, err := set.do(-1)
		if err != nil || now != set.id {
			return fmt.Errorf("work as user %s: the kernel doesn't let this process take the %s ID %d", a.name, set.what, set.id)
		}
	}
	return nil
}
