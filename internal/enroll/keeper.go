package enroll

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// Keeper keeps a node's credentials for as long as a service runs: it gives every call those that are in
// force now, also after another process has replaced them, hears what the platform makes of them, and replaces
// them in time. It may be used by several goroutines.
type Keeper struct {
	o Options

	mu   sync.Mutex
	c    *Credentials // nil where there are none
	why  error        // why not
	seen os.FileInfo  // of the file that c was read from
	// shut is what the platform ended the last handshake for.
	shut *nodehttp.Material
}

// NewKeeper returns a Keeper of the credentials in o.Dir, which need not be there yet. Of o it uses Dir, KeyKind,
// TPM, Clock, AgentVersion, DMIUUID, HTTP, Log and Hook: it makes one attempt at a time.
func NewKeeper(o Options) *Keeper {
	o = o.filled()
	o.Wish, o.Discover, o.Backoff = Wish{}, nil, nodehttp.Backoff{Tries: 1}
	return &Keeper{o: o}
}

// Credentials returns the node's credentials, whatever their situation, or an error where there are none: also those
// that the platform refused are worth trying, as it may change its mind.
func (k *Keeper) Credentials() (*Credentials, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.current()
}

// current returns the credentials after reading them again where the file is another one. k.mu is held.
func (k *Keeper) current() (*Credentials, error) {
	info, err := os.Lstat(filepath.Join(k.o.Dir, unitFile))
	if err == nil && k.seen != nil && os.SameFile(info, k.seen) && info.ModTime().Equal(k.seen.ModTime()) {
		return k.c, k.why
	}
	state, err := inspectAt(k.o.Dir, Wish{}, k.o.now(), k.o.keys())
	if err != nil {
		return nil, err // of the disk: another look may do
	}
	k.seen = info
	k.take(state)
	return k.c, k.why
}

// take makes what was read the present credentials. Connections of the same ones go on.
func (k *Keeper) take(s State) {
	old, c := k.c, s.Credentials
	k.c, k.why = c, nil
	if c == nil || s.Situation == KeyAway {
		k.c, k.why = nil, s.refusal("use the credentials in "+k.o.Dir)
		k.seen = nil // a key may come back, and the file be there in a moment
		return
	}
	if old != nil && old.same(c) {
		c.material = old.material
	}
}

// Material implements nodeclient.Source.
func (k *Keeper) Material() (*nodehttp.Material, error) {
	c, err := k.Credentials()
	if err != nil {
		return nil, err
	}
	return c.material, nil
}

// Now is the time that certificates are judged by, for nodehttp.Options.
func (k *Keeper) Now() time.Time { return k.o.now() }

// Prepare makes sure, in one attempt, that there is a time which may judge the platform's certificate. It is to
// run before each call; most often it does nothing.
func (k *Keeper) Prepare(ctx context.Context) error {
	c, err := k.Credentials()
	if err != nil {
		return err
	}
	if err := k.o.askTime(ctx, c.material, c.LocalClock); err != nil && !k.o.Clock.Judges() {
		return err
	}
	return nil
}
