package ca

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Authority is one authority as it is shown.
type Authority struct {
	ID    string
	Name  string
	State State
	// Fingerprint is the SHA-256 of the certificate in lower-case hexadecimal digits.
	Fingerprint         string
	NotBefore, NotAfter time.Time
	// CrossSignedBy is the ID of the authority before it, which vouches for it until CrossNotAfter; "" where
	// none does.
	CrossSignedBy string
	CrossNotAfter time.Time
	// Presents says that the platform shows itself by this one.
	Presents                           bool
	PreparedAt, ActivatedAt, RetiredAt time.Time
}

// Authorities returns every authority, the oldest first.
func (c *CA) Authorities() []Authority {
	v, now := c.view.Load(), c.now()
	presenter := v.presenter(now)
	list := make([]Authority, 0, len(v.list))
	for _, a := range v.list {
		sum := sha256.Sum256(a.cert.Raw)
		shown := Authority{
			ID: a.id, Name: a.cert.Subject.CommonName, State: a.state, Fingerprint: hex.EncodeToString(sum[:]),
			NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter, Presents: a == presenter,
			PreparedAt: a.since.Prepared, ActivatedAt: a.since.Activated, RetiredAt: a.since.Retired,
		}
		if a.cross != nil {
			shown.CrossNotAfter = a.cross.NotAfter
			if older := v.older(a, a.cross.NotBefore); len(older) > 0 {
				shown.CrossSignedBy = older[0].id
			}
		}
		list = append(list, shown)
	}
	return list
}

// maxTrusted bounds the bundle: to the active authority and those from which cross-certificates lead to it.
const maxTrusted = maxOlder + 1

// Prepare makes the next authority and puts it into the bundle. It returns the new one's ID.
func (c *CA) Prepare() (string, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	v, now := c.view.Load(), c.now()
	if err := mayPrepare(v); err != nil {
		return "", err
	}
	next, err := newAuthority(now)
	if err != nil {
		return "", fmt.Errorf("make the next authority: %w", err)
	}
	next.state, next.unit, next.since.Prepared = Prepared, unitPrefix+next.id+unitSuffix, now.UTC()
	with, err := v.with(next)
	if err != nil {
		return "", err
	}
	// The record comes first: from here on a second unit without it is damage, and never the leavings of a
	// crash.
	if err := writeRecord(c.dir, v); err != nil {
		return "", fmt.Errorf("record the authorities: %w", err)
	}
	if err := writeUnit(c.dir, next.unit, next); err != nil {
		return "", fmt.Errorf("write the next authority: %w", err)
	}
	if err := c.proveUnit(next); err != nil {
		return "", err
	}
	return next.id, c.commit(with)
}

// mayPrepare says why there can't be one more authority.
func mayPrepare(v *view) error {
	for _, a := range v.list {
		if a.state == Prepared {
			return fault.New(fault.Refuse, fault.Input, "activate it, or retire it", "authority %s is prepared already", a.id)
		}
	}
	if len(v.trusted()) >= maxTrusted {
		return fault.New(fault.Refuse, fault.Input, "retire the oldest first", "%d authorities are trusted already", len(v.trusted()))
	}
	return nil
}

// Activate lets the prepared authority sign from now on; the one before stays trusted, and vouches for it
// if it can. It returns the new one's ID.
func (c *CA) Activate() (string, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	v, now := c.view.Load(), c.now()
	var next authority
	for _, a := range v.list {
		if a.state == Prepared {
			next = *a
		}
	}
	if next.id == "" {
		return "", fault.New(fault.Refuse, fault.Input, "prepare one first", "no authority is prepared")
	}
	old := *v.active
	var err error
	if old.canSignAuthorities() {
		if next.cross, err = old.crossSign(&next, now); err != nil {
			return "", fmt.Errorf("sign the next authority by the present one: %w", err)
		}
	}
	old.state, next.state, next.since.Activated = Trusted, Active, now.UTC()
	with, err := v.with(&old, &next)
	if err != nil {
		return "", err
	}
	if err := c.proveUnit(&next); err != nil {
		return "", err
	}
	if err := proveServer(with, &old, now); err != nil {
		return "", fmt.Errorf("try the platform's new certificate as a node sees it that knows the present authority only: %w", err)
	}
	return next.id, c.commit(with)
}

// Retire takes an authority out of the bundle and destroys its key; its certificate stays on record. The
// active one can't be retired. Whether nodes still need it is for the caller to know.
func (c *CA) Retire(id string) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	v, now := c.view.Load(), c.now()
	a := v.find(id)
	switch {
	case a == nil:
		return fault.New(fault.Refuse, fault.Input, "see powernode ca list", "there is no authority %.40q", id)
	case a.state == Active:
		return fault.New(fault.Refuse, fault.Input, "prepare and activate another one first", "authority %s is the active one", id)
	case a.state == Retired:
		return fault.New(fault.Refuse, fault.Input, "see powernode ca list", "authority %s is retired already", id)
	}
	gone := *a
	gone.state, gone.unit, gone.key, gone.since.Retired = Retired, "", nil, now.UTC()
	with, err := v.with(&gone)
	if err != nil {
		return err
	}
	for _, left := range with.trusted() {
		if err := c.proveUnit(left); err != nil {
			return err
		}
	}
	return c.commit(with)
}

// commit puts a view on the disk, then into use, then cleans up. What fails after the record was written
// is made good at the next opening.
func (c *CA) commit(v *view) error {
	if err := writeRecord(c.dir, v); err != nil {
		return fmt.Errorf("record the authorities: %w", err)
	}
	c.view.Store(v)
	return c.tidy()
}

// proveUnit checks that a's key and certificate can be read back.
func (c *CA) proveUnit(a *authority) error {
	read, err := readUnit(c.dir, a.unit)
	if err == nil && (!read.cert.Equal(a.cert) || !read.key.Equal(a.key)) {
		err = broken(a.unit, errors.New("it isn't what was written"))
	}
	if err != nil {
		return fmt.Errorf("read back authority %s: %w", a.id, err)
	}
	return nil
}

// proveServer checks that a server certificate of v is good for who trusts old alone.
func proveServer(v *view, old *authority, now time.Time) error {
	cert, err := newServerCertificate(v, []string{"localhost"}, now)
	if err != nil {
		return err
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(old.cert)
	for _, der := range cert.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		between.AddCert(c)
	}
	_, err = cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, DNSName: "localhost"})
	return err
}
