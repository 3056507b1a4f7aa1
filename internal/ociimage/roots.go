package ociimage

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/powernode/powernode-agent/internal/fault"
)

// rootsMax bounds a file with authorities, in bytes.
const rootsMax = 1 << 20

// TrustAlso returns how hosts are known that the system's authorities vouch for, or those in a file of certificates (PEM). flag is the
// option that names the file, for hints.
func TrustAlso(path, flag string) (*tls.Config, error) {
	text, err := readRoots(path)
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "name a file with "+flag+" that holds certificates of authorities as PEM", "read the authorities of %s: %w", flag, err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		// A system without authorities trusts none; those of the file are all there is.
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(text) {
		return nil, fault.New(fault.Refuse, fault.Input, "name a file with "+flag+" that holds certificates of authorities as PEM", "%s holds no certificate", path)
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}

func readRoots(path string) (text []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if text, err = io.ReadAll(io.LimitReader(f, rootsMax+1)); err == nil && len(text) > rootsMax {
		err = fmt.Errorf("%s has more than %d bytes", path, rootsMax)
	}
	return text, err
}
