package ca

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Unrecorded returns the IDs of the keys in the directory that the record doesn't name: left of a preparation that the
// power ended, or of authorities that came after the record, which then was restored from a backup.
func (c *CA) Unrecorded() ([]string, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	names, err := c.dir.Names()
	if err != nil {
		return nil, err
	}
	v := c.view.Load()
	var list []string
	for _, name := range names {
		rest, isUnit := strings.CutPrefix(name, unitPrefix)
		id, whole := strings.CutSuffix(rest, unitSuffix)
		if isUnit && whole && !slices.ContainsFunc(v.list, func(a *authority) bool { return a.unit == name }) {
			list = append(list, id)
		}
	}
	return list, nil
}

// TakeUp prepares an authority whose key is one of Unrecorded, as Prepare does a new one.
func (c *CA) TakeUp(id string) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	v, now := c.view.Load(), c.now()
	if err := mayPrepare(v); err != nil {
		return err
	}
	if v.find(id) != nil {
		return fault.New(fault.Refuse, fault.Input, "see powernode ca list", "authority %s is on record", id)
	}
	if strings.ContainsAny(id, "/\x00") {
		return fault.New(fault.Refuse, fault.Input, "see powernode ca list", "there is no authority %.40q", id)
	}
	name := unitPrefix + id + unitSuffix
	next, err := readUnit(c.dir, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.Refuse, fault.Input, "see powernode ca list", "there is no key of an authority %.40q", id)
	case err != nil:
		return err
	case next.id != id:
		return broken(name, errors.New("it is the key of authority "+next.id))
	case !next.validAt(now):
		return fault.New(fault.Refuse, fault.Input, "prepare a new one", "authority %s isn't valid now", id)
	}
	next.state, next.unit, next.since.Prepared = Prepared, name, now.UTC()
	with, err := v.with(next)
	if err != nil {
		return err
	}
	return c.commit(with)
}

// IssuerName returns the name of the authority that a certificate, PEM, says it is by; "" where it can't be read.
func IssuerName(certificate string) string {
	block, _ := pem.Decode([]byte(certificate))
	if block == nil {
		return ""
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return ""
	}
	return cert.Issuer.CommonName
}
