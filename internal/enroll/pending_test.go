package enroll

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// TestKeyIsOnTheDiskFirst has the platform look at the node's disk at the moment when a request arrives, and a fault
// at every write of the key before it.
func TestKeyIsOnTheDiskFirst(t *testing.T) {
	for _, c := range []struct {
		name, path string
		purpose    purpose
		enrolled   bool
		work       func(t *testing.T, o Options) error
	}{
		{"enroll", nodeapi.PathEnroll, forEnroll, false, func(t *testing.T, o Options) error {
			_, _, err := Ensure(t.Context(), o)
			return err
		}},
		{"rotate", nodeapi.PathRefresh, forRotate, true, func(t *testing.T, o Options) error {
			return NewKeeper(o).Rotate(t.Context())
		}},
		{"renew", nodeapi.PathRenew, forRenew, true, func(t *testing.T, o Options) error {
			return NewKeeper(o).Renew(t.Context())
		}},
		{"renew what has ended", nodeapi.PathRenew, forRenew, true, func(t *testing.T, o Options) error {
			c, err := NewKeeper(o).Credentials()
			if err != nil {
				return err
			}
			o.HTTP.Now = func() time.Time { return c.Leaf.NotAfter.Add(time.Minute) }
			o.Discover = nil
			_, was, err := Ensure(t.Context(), o)
			if was != Expired {
				t.Errorf("the certificate was %v", was)
			}
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlatform(t)
			p.policy = nodeapi.RenewIssued
			// node is a new directory, and everything that arrives from there on goes to arrived.
			node := func(t *testing.T, arrived func(path string, csr *x509.CertificateRequest)) Options {
				t.Helper()
				p.set(func() {
					p.arrived, p.keys, p.grants = nil, map[string]string{}, map[string]nodeapi.EnrollResponse{}
					p.template = func(cert *x509.Certificate) { cert.NotAfter = time.Now().Add(10 * time.Minute) }
				})
				o := p.options(filepath.Join(t.TempDir(), "pki"))
				if c.enrolled {
					if _, _, err := Ensure(t.Context(), o); err != nil {
						t.Fatal(err)
					}
				}
				p.set(func() { p.arrived, p.template = arrived, nil })
				return o
			}

			var labels, paths []string
			o := node(t, nil)
			p.set(func() {
				p.arrived = func(path string, csr *x509.CertificateRequest) {
					paths = append(paths, path)
					waitsOnDisk(t, o.Dir, c.purpose, csr)
					if (csr != nil) != (path == c.path) {
						t.Errorf("a request of %s asks for a certificate: %v", path, csr != nil)
					}
				}
			})
			o.Hook = func(op string) error {
				if strings.HasPrefix(op, "pending-key:") {
					labels = append(labels, op)
				}
				return nil
			}
			if err := c.work(t, o); err != nil {
				t.Fatal(err)
			}
			if len(paths) == 0 || paths[len(paths)-1] != c.path {
				t.Errorf("the requests were %q", paths)
			}
			if !slices.Contains(labels, "pending-key:fsync") || !slices.Contains(labels, "pending-key:syncdir") {
				t.Fatalf("the key is written by %q", labels)
			}

			for _, at := range labels {
				t.Run(at, func(t *testing.T) {
					var paths []string
					o := node(t, func(path string, _ *x509.CertificateRequest) { paths = append(paths, path) })
					broken := errors.New("the disk is gone")
					o.Hook = func(op string) error {
						if op == at {
							return broken
						}
						return nil
					}
					if err := c.work(t, o); !errors.Is(err, broken) {
						t.Errorf("it ended with %v", err)
					}
					p.set(func() {
						if len(paths) > 0 {
							t.Errorf("the platform was asked for %q", paths)
						}
					})
				})
			}
		})
	}
}

// waitsOnDisk checks that a key is in the node's directory, for nobody else to read, and that it is the one of a
// certificate request, unless that is nil.
func waitsOnDisk(t *testing.T, dir string, p purpose, csr *x509.CertificateRequest) {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, pendingFile))
	if err != nil {
		t.Errorf("the request is here before its key is on the disk: %v", err)
		return
	}
	if info.Mode() != 0o600 {
		t.Errorf("the key's file has mode %v", info.Mode())
	}
	if info, err = os.Stat(dir); err != nil || info.Mode() != os.ModeDir|0o700 {
		t.Errorf("its directory: %v, %v", info, err)
	}
	var f pending
	text, err := os.ReadFile(filepath.Join(dir, pendingFile))
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	if err != nil {
		t.Error(err)
		return
	}
	w := f.slot(p)
	if !w.set() {
		t.Errorf("no key waits for its %s", p)
		return
	}
	key, err := parseKey([]byte(w.KeyPEM))
	if err != nil || csr != nil && !samePublic(csr.PublicKey, key) {
		t.Errorf("another key waits for its %s than the request's: %v", p, err)
	}
}
