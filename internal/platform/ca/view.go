package ca

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// maxOlder bounds how far back cross-certificates are sent: nodes read eight certificates of a signer.
const maxOlder = 6

// view is the authorities at one moment, the oldest first. It doesn't change.
type view struct {
	list    []*authority
	active  *authority
	clients *x509.CertPool
	// bundle is what is to be trusted, as PEM, and bundleSHA256 its hash in hexadecimal digits.
	bundle       []byte
	bundleSHA256 string
}

// newView checks that the authorities make sense together.
func newView(list []*authority) (*view, error) {
	v := &view{list: list, clients: x509.NewCertPool()}
	seen := map[string]bool{}
	prepared := 0
	for _, a := range list {
		if seen[a.id] {
			return nil, fmt.Errorf("two authorities are called %s", a.id)
		}
		seen[a.id] = true
		switch a.state {
		case Active:
			if v.active != nil {
				return nil, fmt.Errorf("both %s and %s are active", v.active.id, a.id)
			}
			v.active = a
		case Prepared:
			if prepared++; prepared > 1 {
				return nil, errors.New("more than one authority is prepared")
			}
		case Trusted, Retired:
		default:
			return nil, fmt.Errorf("authority %s is in the unknown state %.20q", a.id, a.state)
		}
		if (a.state == Retired) != (a.key == nil) {
			return nil, fmt.Errorf("authority %s is %s, with the wrong files for that", a.id, a.state)
		}
		if !a.since.Activated.IsZero() || a.state != Retired {
			v.clients.AddCert(a.cert)
		}
	}
	if v.active == nil {
		return nil, errors.New("no authority is active")
	}
	for _, a := range v.trusted() {
		v.bundle = append(v.bundle, encode(a.cert)...)
	}
	sum := sha256.Sum256(v.bundle)
	v.bundleSHA256 = hex.EncodeToString(sum[:])
	return v, nil
}

// with returns the list with one authority replaced, or added at the end.
func (v *view) with(changed ...*authority) (*view, error) {
	list := append([]*authority{}, v.list...)
next:
	for _, c := range changed {
		for i, a := range list {
			if a.id == c.id {
				list[i] = c
				continue next
			}
		}
		list = append(list, c)
	}
	return newView(list)
}

// find returns the authority of an ID, or nil.
func (v *view) find(id string) *authority {
	for _, a := range v.list {
		if a.id == id {
			return a
		}
	}
	return nil
}

// issuer returns the authority that signed a certificate on file, PEM, or nil.
func (v *view) issuer(certificate string) *authority {
	block, _ := pem.Decode([]byte(certificate))
	if block == nil {
		return nil
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	for _, a := range v.list {
		if a.signed(cert) {
			return a
		}
	}
	return nil
}

// trusted returns the authorities of the bundle.
func (v *view) trusted() []*authority {
	var list []*authority
	for _, a := range v.list {
		if a.state != Retired {
			list = append(list, a)
		}
	}
	return list
}

// older returns the authorities from which cross-certificates lead to a, the nearest first, as far as these
// are valid at t.
func (v *view) older(a *authority, t time.Time) []*authority {
	var list []*authority
	for a.cross != nil && !t.After(a.cross.NotAfter) && len(list) < min(len(v.list), maxOlder) {
		var by *authority
		for _, b := range v.list {
			if bytes.Equal(a.cross.AuthorityKeyId, b.cert.SubjectKeyId) {
				by = b
			}
		}
		if by == nil {
			break
		}
		list = append(list, by)
		a = by
	}
	return list
}

// way returns a's certificate, then the cross-certificates that lead to it from older authorities.
func (v *view) way(a *authority, t time.Time) []*x509.Certificate {
	return append([]*x509.Certificate{a.cert}, v.crosses(a, t)...)
}

func (v *view) crosses(a *authority, t time.Time) []*x509.Certificate {
	var certs []*x509.Certificate
	for _, by := range v.older(a, t) {
		certs = append(certs, a.cross)
		a = by
	}
	return certs
}

// presented returns what is sent with a server certificate by a: the cross-certificates first, since some
// programs take the first certificate of the right name and don't look for another; then the authorities
// themselves, for who knows one by its fingerprint alone.
func (v *view) presented(a *authority, t time.Time) []*x509.Certificate {
	certs := append(v.crosses(a, t), a.cert)
	for _, by := range v.older(a, t) {
		certs = append(certs, by.cert)
	}
	return certs
}

// presenter returns the authority by which the platform shows itself: the active one, unless nothing leads
// to that from an older one which is in the bundle still. Then it is the older one, which all trust, those
// that were off too, until it is retired.
func (v *view) presenter(t time.Time) *authority {
	led := map[*authority]bool{v.active: true}
	for _, a := range v.older(v.active, t) {
		led[a] = true
	}
	for _, a := range v.list {
		if a.state == Trusted && a.validAt(t) && !led[a] {
			return a
		}
	}
	return v.active
}
