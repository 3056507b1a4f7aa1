package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// serverLife is how long a server certificate lives; it is made anew after two thirds of it.
const serverLife = 30 * 24 * time.Hour

// ServerCertificate is the platform's own certificate. Key and certificate live in memory only: every
// start, every two thirds of a lifetime, and every change of the authorities makes new ones.
type ServerCertificate struct {
	ca    *CA
	names []string

	mu      sync.Mutex
	current *tls.Certificate
	of      *view
	renewAt time.Time
}

// NewServerCertificate returns the certificate for the given host names and IP addresses.
func (c *CA) NewServerCertificate(names []string) (*ServerCertificate, error) {
	if len(names) == 0 {
		return nil, errors.New("make a server certificate: no host name to put into it")
	}
	s := &ServerCertificate{ca: c, names: names}
	if _, err := s.GetCertificate(nil); err != nil {
		return nil, err
	}
	return s, nil
}

// GetCertificate is what tls.Config asks at each handshake.
func (s *ServerCertificate) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, now := s.ca.view.Load(), s.ca.now()
	if s.current != nil && s.of == v && now.Before(s.renewAt) {
		return s.current, nil
	}
	cert, err := newServerCertificate(v, s.names, now)
	if err != nil {
		return nil, fmt.Errorf("make the server certificate: %w", err)
	}
	s.current, s.of, s.renewAt = cert, v, now.Add(cert.Leaf.NotAfter.Sub(now)*2/3)
	return cert, nil
}

// newServerCertificate makes a key, a certificate of v for it, and what is sent along.
func newServerCertificate(v *view, names []string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "powernode-platform"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	by := v.presenter(now)
	issued, err := by.issue(template, key.Public(), serverLife, now)
	if err != nil {
		return nil, err
	}
	leaf, err := parseOne(string(issued.PEM))
	if err != nil {
		return nil, err
	}
	cert := &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	for _, c := range v.presented(by, now) {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}
