package platform_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
)

// identity is a key with its certificate request and, once there is one, its certificate.
type identity struct {
	key  ed25519.PrivateKey
	csr  string
	cert string // PEM
}

func newIdentity(t *testing.T) identity {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return identity{key: key, csr: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))}
}

// ask makes one request by the identity's certificate, where it has one, and decodes the data of the answer.
// The code is that of a refusal.
func (i identity) ask(t *testing.T, config operatorclient.Config, method, path string, body, into any) (nodeapi.Code, error) {
	t.Helper()
	tlsConfig, err := config.TLS()
	if err != nil {
		t.Fatal(err)
	}
	if i.cert != "" {
		block, _ := pem.Decode([]byte(i.cert))
		tlsConfig.Certificates = []tls.Certificate{{Certificate: [][]byte{block.Bytes}, PrivateKey: i.key}}
	}
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, config.URL+path, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: tlsConfig, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if data, err = io.ReadAll(resp.Body); err != nil {
		return "", err
	}
	var env nodeapi.Envelope
	if err := json.Unmarshal(data, &env); err != nil {
		return "", err
	}
	if !env.Success {
		return env.Code, nil
	}
	return "", json.Unmarshal(env.Data, into)
}

// rotating is a node that rotates its certificate as fast as it can, as the test remembers it.
type rotating struct {
	node    string
	current identity
	// before is the certificate that current took the place of, by a use that was answered.
	before *identity
	// next is a key whose certificate was asked for.
	next *identity
}

// rotate goes on until the platform doesn't answer any more. Anything that it does may have been done
// although there was no answer; what was answered must have been done.
func (r *rotating) rotate(t *testing.T, config operatorclient.Config) (rounds int) {
	t.Helper()
	for ; ; rounds++ {
		if r.next == nil {
			next := newIdentity(t)
			r.next = &next
		}
		var out nodeapi.EnrollResponse
		code, err := r.current.ask(t, config, http.MethodPost, nodeapi.PathRefresh, nodeapi.RefreshRequest{CSRPEM: r.next.csr}, &out)
		if err != nil {
			return rounds
		}
		switch {
		case code == nodeapi.CodeTooManyRequests:
			return rounds
		case code == nodeapi.CodeCertificateSuperseded && r.next.cert != "":
			// The use of the next one counted, and its answer was lost.
		case code != "":
			t.Errorf("%s: refresh: %s", r.node, code)
			return rounds
		case r.next.cert != "" && r.next.cert != out.CertPEM:
			t.Errorf("%s: a certificate was answered, and then another one for the same key", r.node)
			return rounds
		default:
			r.next.cert = out.CertPEM
		}
		code, err = r.next.ask(t, config, http.MethodGet, nodeapi.PathModules, nil, &nodeapi.ModuleList{})
		if err != nil {
			return rounds
		}
		if code != "" {
			t.Errorf("%s: the successor: %s", r.node, code)
			return rounds
		}
		before := r.current
		r.before, r.current, r.next = &before, *r.next, nil
	}
}

// TestKillCertificates kills the platform again and again while nodes rotate and are revoked: a certificate
// that was answered is on file, its first use that was answered has ended the one before, and a revocation
// that was answered holds.
func TestKillCertificates(t *testing.T) {
	c := newChild(t)
	var nodes []*rotating
	revoked := map[string]identity{}
	made, rotations := 0, 0
	// On a slow machine it takes more rounds, each longer than the one before, until anything was answered.
	for round := 0; round < 6 || round < 60 && (rotations == 0 || len(revoked) == 0); round++ {
		client, config := c.start()
		for name, i := range revoked {
			if code, err := i.ask(t, config, http.MethodGet, nodeapi.PathModules, nil, nil); err != nil || code != nodeapi.CodeCertificateRevoked {
				t.Fatalf("round %d: %s was revoked: %q, %v", round, name, code, err)
			}
		}
		for _, n := range nodes {
			if n.before == nil {
				continue
			}
			if code, err := n.before.ask(t, config, http.MethodGet, nodeapi.PathModules, nil, nil); err != nil || code != nodeapi.CodeCertificateSuperseded {
				t.Fatalf("round %d: %s: the certificate before: %q, %v", round, n.node, code, err)
			}
		}
		for len(nodes) < 3 {
			made++
			nodes = append(nodes, enrollChild(t, client, config, fmt.Sprint("n-", made)))
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		victim := nodes[len(nodes)-1]
		nodes = nodes[:len(nodes)-1]
		wg.Go(func() {
			if _, err := client.RevokeNode(t.Context(), victim.node, operatorapi.RevokeRequest{}); err == nil {
				mu.Lock()
				defer mu.Unlock()
				revoked[victim.node] = victim.current
			}
		})
		for _, n := range nodes {
			wg.Go(func() {
				done := n.rotate(t, config)
				mu.Lock()
				defer mu.Unlock()
				rotations += done
			})
		}
		time.Sleep(time.Duration(15+23*round) * time.Millisecond)
		c.kill()
		wg.Wait()
		client.Close()
	}
	if rotations == 0 || len(revoked) == 0 {
		t.Errorf("%d rotations, %d revocations", rotations, len(revoked))
	}
}

func enrollChild(t *testing.T, client *operatorclient.Client, config operatorclient.Config, name string) *rotating {
	t.Helper()
	if _, err := client.CreateNode(t.Context(), operatorapi.NodeCreate{Name: name, Architecture: "amd64"}); err != nil {
		t.Fatal(err)
	}
	token, err := client.CreateToken(t.Context(), name, operatorapi.TokenCreate{})
	if err != nil {
		t.Fatal(err)
	}
	i := newIdentity(t)
	var out nodeapi.EnrollResponse
	code, err := i.ask(t, config, http.MethodPost, nodeapi.PathEnroll, nodeapi.EnrollRequest{BootstrapToken: token.Token, CSRPEM: i.csr}, &out)
	if err != nil || code != "" {
		t.Fatal(code, err)
	}
	i.cert = out.CertPEM
	return &rotating{node: name, current: i}
}
