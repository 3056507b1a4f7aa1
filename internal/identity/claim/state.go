package claim

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/secret"
)

const (
	fileName = "claim.json"
	lockName = "claim.lock"
	maxFile  = 16 << 10

	version = 1
)

// errNothing says that there is no claim on the disk.
var errNothing = errors.New("no claim")

// state is the file of a claim, mode 0600. Version grows with a change that an older agent would misread.
type state struct {
	Version int `json:"version"`
	// Origin is the platform that was asked, and the only one that may see ClaimKey; PlatformURL the one that the token is for.
	Origin      string `json:"asked_url"`
	PlatformURL string `json:"platform_url,omitempty"`
	// MAC is what the machine said when the claim began: it goes on saying so when another of its links has the default route.
	MAC      string `json:"mac"`
	ClaimKey string `json:"claim_key"`
	// Token and InstanceID are those of a claim that was accepted.
	Token      string `json:"bootstrap_token,omitempty"`
	InstanceID string `json:"instance_id,omitempty"`
}

func (s state) claimed() Claimed {
	return Claimed{Token: secret.New(s.Token), InstanceID: s.InstanceID, PlatformURL: s.PlatformURL}
}

// check refuses a file that can't be gone on with.
func (s state) check() error {
	key, err := hex.DecodeString(s.ClaimKey)
	if err != nil || len(key) != 32 || s.Version != version || s.MAC == "" {
		return errNothing
	}
	if s.Token == "" {
		return nil
	}
	_, errToken := identity.ParseToken(s.Token)
	_, errID := identity.ParseInstanceID(s.InstanceID)
	_, errURL := nodehttp.ParsePlatformURL(s.PlatformURL)
	if errToken != nil || errID != nil || errURL != nil {
		return errNothing
	}
	return nil
}

// open opens the directory of the claim and locks the claim against other agents until release.
func open(o Options) (d *durable.Dir, release func(), err error) {
	if d, err = durable.MakeDir(o.Dir, 0o700, o.Hook); err != nil {
		return nil, nil, err
	}
	lock, err := d.TryLock(lockName, durable.Exclusive)
	if err != nil {
		return nil, nil, errors.Join(err, d.Close())
	}
	release = func() {
		// The lock has ended, whatever Unlock says.
		_ = lock.Unlock()
		_ = d.Close()
	}
	// What killed writers left behind may hold a key.
	if err := d.Sweep(); err != nil {
		release()
		return nil, nil, err
	}
	return d, release, nil
}

// read returns the claim on the disk, or errNothing where there is none that can be gone on with. A damaged one is lost either way.
func read(d *durable.Dir) (state, error) {
	var s state
	err := d.ReadJSON(fileName, maxFile, &s)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return state{}, d.Diagnose(err)
	case err != nil:
		return state{}, errNothing
	}
	return s, s.check()
}

// Kept returns the platform that the claim which is kept in dir was begun at, and whether it has a token by now; platform is "" where
// there is no claim. Nothing is changed.
func Kept(dir string) (platform string, accepted bool, err error) {
	d, err := durable.OpenDir(dir, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("look for a claim: %w", err)
	}
	defer d.Close()
	s, err := read(d)
	if errors.Is(err, errNothing) {
		return "", false, nil
	}
	return s.Origin, s.Token != "", err
}

// begin goes on with the claim on the disk, if it is this machine's at this platform, or begins one. A disk that was copied to another
// machine has a claim that isn't that machine's.
func (w *waiter) begin() error {
	s, err := read(w.dir)
	switch {
	case err != nil && !errors.Is(err, errNothing):
		return err
	case err == nil && s.Origin == w.PlatformURL && slices.Contains(append(w.Machine.MACs, w.Machine.MAC), s.MAC):
		w.state = s
		return nil
	}
	return w.anew()
}

// anew begins another claim: its key is on the disk before it is sent.
func (w *waiter) anew() error {
	var key [32]byte
	// crypto/rand.Read never fails: it ends the process where the system has no randomness.
	_, _ = rand.Read(key[:])
	w.state = state{Version: version, Origin: w.PlatformURL, MAC: w.Machine.MAC, ClaimKey: hex.EncodeToString(key[:])}
	return w.dir.WriteJSON(fileName, w.state, 0o600, "claim-key")
}

// keep keeps the token of a claim that was accepted; "" forgets it.
func (w *waiter) keep(token, instanceID string) error {
	w.state.Token, w.state.InstanceID = token, instanceID
	return w.dir.WriteJSON(fileName, w.state, 0o600, "claim-token")
}

// Settle tells how the enrollment went that used what Run returned. Once it succeeded the claim is forgotten; where the platform refused the
// token, the token is, so that the next Run asks for another. Any other failure changes nothing. Without a claim in dir it does nothing.
func Settle(dir string, enrolled error, hook durable.Hook) error {
	refused := nodehttp.CodeOf(enrolled) == nodeapi.CodeTokenRefused || nodehttp.StatusOf(enrolled) == http.StatusUnprocessableEntity
	if enrolled != nil && !refused {
		return nil
	}
	d, err := durable.OpenDir(dir, hook)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("forget the claim: %w", err)
	}
	defer d.Close()
	if enrolled == nil {
		if err := d.Sweep(); err != nil {
			return fmt.Errorf("forget the claim: %w", err)
		}
		if err := d.Remove(fileName, "claim-done"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fault.New(fault.Retry, fault.Mount, "look at the disk", "forget the claim: %w", err)
		}
		return nil
	}
	s, err := read(d)
	switch {
	case errors.Is(err, errNothing):
		return nil
	case err != nil:
		return fmt.Errorf("forget the claim's token: %w", err)
	case s.Token == "":
		return nil
	}
	s.Token, s.InstanceID = "", ""
	if err := d.WriteJSON(fileName, s, 0o600, "claim-token-refused"); err != nil {
		return fmt.Errorf("forget the claim's token: %w", err)
	}
	return nil
}
