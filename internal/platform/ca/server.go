package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// serverLife is how long a server certificate lives; it is made anew after two thirds of it.
const serverLife = 30 * 24 * time.Hour

// ServerCertificate is the platform's own certificate. Key and certificate live in memory only:
// every start, and every two thirds of a lifetime, makes new ones.
type ServerCertificate struct {
	ca    *CA
	names []string

	mu      sync.Mutex
	current *tls.Certificate
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
	if s.current != nil && s.ca.now().Before(s.renewAt) {
		return s.current, nil
	}
	cert, err := s.make()
	if err != nil {
		return nil, fmt.Errorf("make the server certificate: %w", err)
	}
	s.current, s.renewAt = cert, s.ca.now().Add(serverLife*2/3)
	return cert, nil
}

func (s *ServerCertificate) make() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "powernode-platform"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range s.names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	leaf, err := s.ca.issue(template, key.Public(), serverLife)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(leaf.PEM)
	return &tls.Certificate{Certificate: [][]byte{block.Bytes, s.ca.cert.Raw}, PrivateKey: key}, nil
}
