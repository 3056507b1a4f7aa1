package nodeapitest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity/claim"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeclient"
	"github.com/powernode/powernode-agent/internal/nodeconfig"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/secret"
	"github.com/powernode/powernode-agent/internal/signedtime"
)

// existingInstance is a node of the existing platform.
const existingInstance = "0190a4c2-7d1e-7c3b-9f20-5b1f7a6c8d90"

// existingToken is the bootstrap token in the written answers.
const existingToken = "TOKEN-OF-43-CHARACTERS-AS-THAT-PLATFORM-MAKES"

// existing answers as the existing platform does (its Rails server as of May 2026): the answers are written
// down in testdata, with names where something of the moment stands. Its certificates are by its local
// authority: Ed25519, the validity from now, no name but the common one.
type existing struct {
	*httptest.Server
	t       *testing.T
	answers map[string]struct {
		Status int             `json:"status"`
		Body   json.RawMessage `json:"body"`
	}
	unused map[string]bool // answers that nothing asked for yet
	key    ed25519.PrivateKey
	ca     *x509.Certificate
	mu     sync.Mutex
	spent  bool
	asked  []string
	bodies []map[string]any
}

func newExisting(t *testing.T) *existing {
	t.Helper()
	e := &existing{t: t, unused: map[string]bool{}}
	data, err := os.ReadFile(filepath.Join("testdata", "existing-platform.json"))
	if err == nil {
		err = json.Unmarshal(data, &e.answers)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name := range e.answers {
		e.unused[name] = true
	}
	_, e.key, err = ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Powernode Internal CA (local-dev)"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	e.ca = e.sign(root, root, e.key.Public())
	web := e.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: root.NotBefore, NotAfter: root.NotAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, e.ca, e.key.Public())
	e.Server = httptest.NewUnstartedServer(http.HandlerFunc(e.serve))
	// The proxy before the platform takes a node's certificate where one is shown.
	e.TLS = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{web.Raw}, PrivateKey: e.key}}, ClientAuth: tls.RequestClientCert,
	}
	e.StartTLS()
	t.Cleanup(e.Close)
	return e
}

func (e *existing) sign(c, parent *x509.Certificate, key any) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key, e.key)
	if err == nil {
		c, err = x509.ParseCertificate(der)
	}
	if err != nil {
		panic(err) // of a template in this file
	}
	return c
}

func encoded(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func (e *existing) serve(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	path := strings.TrimPrefix(r.URL.Path, nodeapi.Base)
	e.asked = append(e.asked, r.Method+" "+path)
	body := map[string]any{}
	data, err := io.ReadAll(r.Body)
	if err == nil && len(data) > 0 {
		err = json.Unmarshal(data, &body)
	}
	if err != nil {
		e.t.Error(err)
	}
	e.bodies = append(e.bodies, body)
	switch path {
	case "/enroll":
		if e.spent || body["bootstrap_token"] != existingToken {
			e.answer(w, "enroll, a bad token", nil)
			return
		}
		e.spent = true
		e.answer(w, "enroll", e.issue(body["csr_pem"]))
	case "/claim":
		// The operator binds the device between the first poll and the second.
		if len(e.asked) == 1 {
			e.answer(w, "claim, pending", nil)
			return
		}
		e.answer(w, "claim, claimed", []string{"INSTANCE", existingInstance, "URL", e.URL})
	case "/enroll/refresh":
		e.answer(w, "enroll", e.issue(body["csr_pem"]))
	case "/status/heartbeat":
		if len(r.TLS.PeerCertificates) == 0 || r.TLS.PeerCertificates[0].Subject.CommonName != existingInstance {
			e.t.Error("a heartbeat without the node's certificate")
		}
		e.answer(w, "heartbeat", []string{"NOW", time.Now().UTC().Format(time.RFC3339)})
	case "/config":
		e.answer(w, "config", nil)
	case "/config/authorized_keys":
		e.answer(w, "authorized keys", nil)
	default:
		e.answer(w, "not routed", nil)
	}
}

// issue signs a request and returns what stands in the answer for the names in it.
func (e *existing) issue(csr any) []string {
	text, _ := csr.(string)
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		e.t.Errorf("csr_pem is %v", csr)
		return nil
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil {
		e.t.Error(err)
		return nil
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		e.t.Error(err)
		return nil
	}
	leaf := e.sign(&x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: existingInstance}, NotBefore: time.Now().Truncate(time.Second), NotAfter: time.Now().Add(90 * day),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, e.ca, request.PublicKey)
	return []string{"CERT", encoded(leaf), "CHAIN", encoded(e.ca), "INSTANCE", existingInstance, "NOT_AFTER", leaf.NotAfter.UTC().Format(time.RFC3339)}
}

// answer sends the written answer with the names in it, which are in pairs with what they stand for, replaced.
func (e *existing) answer(w http.ResponseWriter, name string, pairs []string) {
	a, ok := e.answers[name]
	if !ok {
		e.t.Errorf("no answer %q is written down", name)
	}
	delete(e.unused, name)
	var quoted []string
	for i := 0; i+1 < len(pairs); i += 2 {
		value, err := json.Marshal(pairs[i+1])
		if err != nil {
			e.t.Error(err)
		}
		quoted = append(quoted, `"`+pairs[i]+`"`, string(value))
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(a.Status)
	_, _ = io.WriteString(w, strings.NewReplacer(quoted...).Replace(string(a.Body))) // who went away needs none
}

// claimedAs is what a claim came to.
type claimedAs struct{ Code, Token, InstanceID string }

// claim has a machine without a token claimed.
func (e *existing) claim() claimedAs {
	e.t.Helper()
	cas, err := nodehttp.ParseCAs([]byte(encoded(e.ca)))
	if err != nil {
		e.t.Fatal(err)
	}
	var out claimedAs
	c, err := claim.Run(e.t.Context(), claim.Options{
		Dir: e.t.TempDir(), PlatformURL: e.URL, Machine: claim.Machine{MAC: "02:fc:00:00:00:01", AgentVersion: "v0-test", Architecture: "amd64"},
		Connect: func(context.Context) (*nodehttp.Conn, error) {
			return nodehttp.New(&nodehttp.Material{PlatformURL: e.URL, CAs: cas}, nodehttp.Options{})
		},
		Show:  func(s claim.Sign) { out.Code = s.Code },
		Sleep: func(context.Context, time.Duration) error { return nil },
	})
	if err != nil {
		e.t.Fatal(err)
	}
	out.Token, out.InstanceID = c.Token.Reveal(), c.InstanceID
	return out
}

// TestExistingPlatform: a machine is claimed at the existing platform; the agent enrolls at the existing platform, reports there and rotates, by the answers
// which that gives. It signs no time, so the node must have been told to go by its own clock.
func TestExistingPlatform(t *testing.T) {
	e := newExisting(t)
	ctx := t.Context()
	claimed := e.claim()
	if claimed.InstanceID != existingInstance || claimed.Token != existingToken || claimed.Code != "K7WQ2M9C" {
		t.Errorf("claimed %+v", claimed)
	}
	dir := filepath.Join(t.TempDir(), "pki")
	ensure := func(local bool, alter func(*enroll.Options)) (*enroll.Credentials, enroll.Situation, error) {
		clock := signedtime.Open(t.TempDir(), signedtime.Options{Local: local})
		o := enroll.Options{
			Dir: dir, Clock: clock, AgentVersion: "v0-test", Architecture: "amd64", DMIUUID: "4c4c4544-0042-3510-8052-b4c04f4e3232", Backoff: nodehttp.Backoff{Tries: 1},
			Discover: func(context.Context) (enroll.Bootstrap, error) {
				return enroll.Bootstrap{PlatformURL: e.URL, CAPEM: []byte(encoded(e.ca)), Token: secret.New(existingToken), LocalClock: local}, nil
			},
		}
		if alter != nil {
			alter(&o)
		}
		return enroll.Ensure(ctx, o)
	}
	if _, _, err := ensure(false, nil); fault.KindOf(err) != fault.Refuse {
		t.Errorf("without a signed time: %v", err)
	}
	for _, asked := range e.asked {
		if asked == "POST /enroll" {
			t.Error("the token was sent to a platform that doesn't sign the time")
		}
	}
	c, _, err := ensure(true, nil)
	if err != nil || c.InstanceID != existingInstance {
		t.Fatalf("%+v, %v", c, err)
	}
	beat := func(c *enroll.Credentials) {
		t.Helper()
		client, err := nodeclient.New(nodeclient.Config{Credentials: c})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		answer, err := client.Heartbeat(ctx, nodeapi.Heartbeat{
			BootID: "boot", AgentVersion: "v0-test", Architecture: "amd64", ModuleDigests: map[string]string{}, MountState: nodeapi.MountMounted,
		})
		if err != nil || !answer.Acknowledged || answer.NextPollSeconds != 30 {
			t.Fatalf("%+v, %v", answer, err)
		}
		// Its call for the configuration fails always; the one for keys works.
		config, err := client.Config(ctx)
		if err != nil || config.Digest != "" || config.Hosts != nil || len(config.Users) != 1 {
			t.Fatalf("%+v, %v", config, err)
		}
		if user, err := nodeconfig.ParseUser(config.Users[0]); err != nil || user.Name != "root" || len(user.Keys) != 2 {
			t.Errorf("%+v, %v", user, err)
		}
	}
	beat(c)
	rotated, _, err := ensure(true, func(o *enroll.Options) { o.Now = true })
	if err != nil || rotated.Leaf.SerialNumber.Cmp(c.Leaf.SerialNumber) == 0 {
		t.Fatalf("rotate: %+v, %v", rotated, err)
	}
	beat(rotated)

	// Its refusal has no code; another machine with the token is told what to do all the same.
	dir = filepath.Join(t.TempDir(), "elsewhere")
	if _, _, err := ensure(true, nil); fault.KindOf(err) != fault.Refuse || !strings.Contains(fault.HintOf(err), "token") {
		t.Errorf("a spent token: %v (hint %q)", err, fault.HintOf(err))
	}
	if len(e.unused) > 0 {
		t.Errorf("nothing asked for %v", e.unused)
	}
	for i, asked := range e.asked {
		if asked == "POST /enroll" && (e.bodies[i]["csr_pem"] == nil || e.bodies[i]["dmi_uuid"] == nil || e.bodies[i]["agent_version"] != "v0-test") {
			t.Errorf("%s: %v", asked, e.bodies[i])
		}
	}
}
