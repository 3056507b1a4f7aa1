package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
)

// The files in the authority's directory.
const (
	// recordName says which authority is in which state. It isn't there before the first change: then
	// firstUnit is the only authority.
	recordName = "authorities.json"
	// firstUnit and unitPrefix+ID+unitSuffix hold a key and its certificate, readable by the owner only.
	firstUnit  = "authority.pem"
	unitPrefix = "authority-"
	unitSuffix = ".pem"
	// bundleName holds the certificates to trust, for people and programs that need the trust anchors.
	bundleName = "ca.pem"
)

// Bounds of the files in bytes.
const (
	unitLimit   = 64 << 10
	recordLimit = 1 << 20
)

const recordVersion = 1

// record is the file recordName.
type record struct {
	Version     int           `json:"version"`
	Authorities []recordEntry `json:"authorities"`
}

// recordEntry is one authority. What is secret is in its unit.
type recordEntry struct {
	ID    string `json:"id"`
	State State  `json:"state"`
	// Unit is the file with the key; "" of a retired one.
	Unit string `json:"unit,omitempty"`
	// CertificatePEM is the authority's own certificate, CrossPEM the one by its predecessor.
	CertificatePEM string `json:"certificate_pem"`
	CrossPEM       string `json:"cross_pem,omitempty"`
	Since          since  `json:"since"`
}

func broken(name string, err error) error {
	return fault.New(fault.Broken, fault.General, "restore the directory ca from a backup", "read the certificate authority in %s: %w", name, err)
}

// readAuthorities reads every authority in dir, and makes the first one if dir never had any.
func readAuthorities(dir *durable.Dir, now time.Time) ([]*authority, error) {
	var r record
	err := dir.ReadJSON(recordName, recordLimit, &r)
	if errors.Is(err, fs.ErrNotExist) {
		a, err := readFirst(dir, now)
		return []*authority{a}, err
	}
	if err != nil {
		return nil, broken(recordName, err)
	}
	if r.Version != recordVersion {
		return nil, fault.New(fault.Refuse, fault.General, "use the version of powernode-platform that wrote it",
			"%s has version %d, and this program reads %d", recordName, r.Version, recordVersion)
	}
	list := make([]*authority, 0, len(r.Authorities))
	for _, e := range r.Authorities {
		a, err := readEntry(dir, e)
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, nil
}

// readFirst reads the authority of a directory without a record.
func readFirst(dir *durable.Dir, now time.Time) (*authority, error) {
	names, err := dir.Names()
	if err != nil {
		return nil, err
	}
	// The record is written before a second unit is, and the bundle after the first one.
	second, left := "", ""
	for _, name := range names {
		if strings.HasPrefix(name, unitPrefix) {
			second = name
		}
		if name == bundleName || name == second {
			left = name
		}
	}
	a, err := readUnit(dir, firstUnit)
	switch {
	case errors.Is(err, fs.ErrNotExist) && left == "":
		a, err = createFirst(dir, now)
	case errors.Is(err, fs.ErrNotExist):
		return nil, broken(firstUnit, fmt.Errorf("%s is there without it", left))
	case err == nil && second != "":
		return nil, broken(recordName, fmt.Errorf("%s is there without it", second))
	}
	if err != nil {
		return nil, err
	}
	a.state, a.unit, a.since = Active, firstUnit, since{Prepared: a.cert.NotBefore, Activated: a.cert.NotBefore}
	return a, nil
}

func createFirst(dir *durable.Dir, now time.Time) (*authority, error) {
	a, err := newAuthority(now)
	if err != nil {
		return nil, fmt.Errorf("make the certificate authority: %w", err)
	}
	return a, writeUnit(dir, firstUnit, a)
}

func writeUnit(dir *durable.Dir, name string, a *authority) error {
	data, err := a.encodeUnit()
	if err != nil {
		return fmt.Errorf("encode an authority: %w", err)
	}
	return dir.WriteFile(name, data, 0o600, "ca-authority")
}

// readUnit reads a key and its certificate.
func readUnit(dir *durable.Dir, name string) (*authority, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fault.New(fault.Refuse, fault.General, "find out who could read it, then chmod 600",
			"%s: mode %04o lets others read the authority's key", name, info.Mode().Perm())
	}
	data, err := dir.ReadFile(name, unitLimit)
	if err != nil {
		return nil, err
	}
	a, err := parseUnit(data)
	if err != nil {
		return nil, broken(name, err)
	}
	return a, nil
}

// readEntry reads an authority of the record with its unit.
func readEntry(dir *durable.Dir, e recordEntry) (*authority, error) {
	cert, err := parseOne(e.CertificatePEM)
	if err != nil {
		return nil, broken(recordName, fmt.Errorf("the certificate of %.40q: %w", e.ID, err))
	}
	a := &authority{id: e.ID, state: e.State, unit: e.Unit, cert: cert, since: e.Since}
	if authorityID(cert.SerialNumber) != e.ID {
		return nil, broken(recordName, fmt.Errorf("the certificate of %.40q is another's", e.ID))
	}
	if e.CrossPEM != "" {
		if a.cross, err = parseOne(e.CrossPEM); err != nil {
			return nil, broken(recordName, fmt.Errorf("the cross-certificate of %s: %w", e.ID, err))
		}
	}
	if e.Unit == "" {
		return a, nil
	}
	unit, err := readUnit(dir, e.Unit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, broken(e.Unit, err)
	}
	if err != nil {
		return nil, err
	}
	if !unit.cert.Equal(cert) {
		return nil, broken(e.Unit, errors.New("it is another authority than the record says"))
	}
	a.key = unit.key
	return a, nil
}

func parseOne(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("it isn't PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

// writeRecord puts a view on the disk.
func writeRecord(dir *durable.Dir, v *view) error {
	return dir.WriteJSON(recordName, v.record(), 0o600, "ca-record")
}

// record is what the disk holds of a view, but for its keys.
func (v *view) record() record {
	r := record{Version: recordVersion}
	for _, a := range v.list {
		e := recordEntry{ID: a.id, State: a.state, Unit: a.unit, CertificatePEM: string(encode(a.cert)), Since: a.since}
		if a.cross != nil {
			e.CrossPEM = string(encode(a.cross))
		}
		r.Authorities = append(r.Authorities, e)
	}
	return r
}

// tidy brings the directory in step with the view, also after a crash in the middle of a change: the bundle
// follows, and keys of retired authorities are removed. A key that the record doesn't know stays: it is that of a
// preparation which the power ended, and harmless, or the record is older than the key, and then everything.
func (c *CA) tidy() error {
	v := c.view.Load()
	want := v.bundle
	if have, err := c.dir.ReadFile(bundleName, recordLimit); err != nil || !bytes.Equal(have, want) {
		if err := c.dir.WriteFile(bundleName, want, 0o644, "ca-certificate"); err != nil {
			return fmt.Errorf("write the authorities' certificates: %w", err)
		}
	}
	for i, a := range v.list {
		if a.state != Retired {
			continue
		}
		name := unitPrefix + a.id + unitSuffix
		if i == 0 {
			name = firstUnit
		}
		if err := c.dir.Remove(name, "ca-key"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove a key that isn't used any more: %w", err)
		}
	}
	return nil
}
