package platform

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/api"
	"github.com/powernode/powernode-agent/internal/platform/registry"
)

// blobSize is more than pipes and buffers hold.
const blobSize = 4 << 20

// blobHex and blobPath name the blob of slowly's registry; what is in it nobody looks at.
var (
	blobHex  = strings.Repeat("ab", 32)
	blobPath = registry.Root + "x/blobs/sha256:" + blobHex
)

// oneBlob is an index with a blob.
type oneBlob struct{ registry.Index }

func (oneBlob) Blob(context.Context, string, string) (int64, error) { return blobSize, nil }

func blobDir(t *testing.T) *durable.Dir {
	t.Helper()
	path := t.TempDir()
	if err := os.Mkdir(filepath.Join(path, blobHex[:2]), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, blobHex[:2], blobHex), make([]byte, blobSize), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := durable.OpenDir(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	return dir
}

// letGo waits until the server has closed the connection, and looks whether it took too long.
func (s slow) letGo(t *testing.T, within time.Duration) {
	t.Helper()
	begun := time.Now()
	select {
	case at := <-s.closed:
		if took := at.Sub(begun); took > within {
			t.Errorf("it was held for %s", took)
		}
	case <-time.After(time.Hour):
		t.Error("it is held for ever")
	}
}

// TestSlowReaders: whoever asks for something and doesn't take it loses the connection after a bounded time.
func TestSlowReaders(t *testing.T) {
	for name, tc := range map[string]struct {
		path   string
		within time.Duration
	}{
		"of an API":       {api.PathOpenAPI, 2*time.Minute + time.Second},
		"of the registry": {blobPath, time.Minute + 10*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := slowly(t, nil)
				if _, err := fmt.Fprintf(client, "GET %s HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer x\r\n\r\n", tc.path); err != nil {
					t.Fatal(err)
				}
				server.letGo(t, tc.within)
				server.end()
			})
		})
	}
}

// TestSteadyReader: a pull may take an hour, as long as something goes on.
func TestSteadyReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := slowly(t, nil)
		if _, err := fmt.Fprintf(client, "GET %s HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer x\r\n\r\n", blobPath); err != nil {
			t.Fatal(err)
		}
		begun, in := time.Now(), bufio.NewReaderSize(client, 64<<10)
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		n := int64(0)
		for more := int64(1); more > 0; n += more {
			time.Sleep(50 * time.Second)
			if more, err = io.CopyN(io.Discard, resp.Body, 64<<10); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
		if took := time.Since(begun); n != blobSize || took < 50*time.Minute {
			t.Errorf("%d bytes in %s", n, took)
		}
		server.end()
	})
}

// Frames of HTTP/2 (RFC 9113, sections 4.1 and 6).
const (
	h2Data, h2Headers, h2Settings = 0, 1, 4
	h2EndStream, h2EndHeaders     = 1, 4
)

func h2Frame(kind, flags byte, stream uint32, payload string) string {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	return string(binary.BigEndian.AppendUint32(append(head, flags), stream)) + payload
}

// h2Request is the block of a request's header (RFC 7541): names out of the static table, and short values as they are.
func h2Request(method byte, path string) string {
	value := func(name, v string) string { return name + string(rune(len(v))) + v }
	return string([]byte{method}) + "\x87" + value("\x04", path) + value("\x01", "p") + value("\x0f\x08", "Bearer x")
}

// h2Get and h2Post are :method GET and POST of the static table, with the bit that says so.
const h2Get, h2Post = 0x82, 0x83

// secured returns the settings of a server with a certificate of its own that speaks HTTP/2.
func secured(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"p"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// TestSlowClientsOverHTTP2: what bounds a connection bounds one with many streams.
func TestSlowClientsOverHTTP2(t *testing.T) {
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	hello := preface + h2Frame(h2Settings, 0, 0, "")
	get := func(path string) string {
		return hello + h2Frame(h2Headers, h2EndHeaders|h2EndStream, 1, h2Request(h2Get, path))
	}
	post := func(path string) string { return hello + h2Frame(h2Headers, h2EndHeaders, 1, h2Request(h2Post, path)) }
	for name, tc := range map[string]struct {
		sends string
		// reads says that the client takes what comes, but gives the streams no more room than at first.
		reads  bool
		within time.Duration
	}{
		"nothing":              {"", true, time.Minute},
		"half a preface":       {preface[:10], true, time.Minute},
		"no request":           {hello, true, 3 * time.Minute},
		"half a header":        {hello + h2Frame(h2Headers, 0, 1, h2Request(h2Get, "/")), true, 3 * time.Minute},
		"no body":              {post(nodeapi.PathEnroll), true, 4 * time.Minute},
		"half a body":          {post(nodeapi.PathEnroll) + h2Frame(h2Data, 0, 1, "{"), true, 4 * time.Minute},
		"no body, to a pull":   {post(blobPath), true, 4 * time.Minute},
		"takes no API":         {get(api.PathOpenAPI), false, 2 * time.Minute},
		"takes no blob":        {get(blobPath), false, 2 * time.Minute},
		"no room for an API":   {get(api.PathOpenAPI), true, 5 * time.Minute},
		"no room for a blob":   {get(blobPath), true, 5 * time.Minute},
		"no further request":   {get("/api/nothing"), true, 3 * time.Minute},
		"takes nothing at all": {hello, false, 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				plain, server := slowly(t, secured(t))
				client := tls.Client(plain, &tls.Config{NextProtos: []string{"h2"}, InsecureSkipVerify: true}) //nolint:gosec // it isn't about whom it speaks with
				if err := client.Handshake(); err != nil || client.ConnectionState().NegotiatedProtocol != "h2" {
					t.Fatal(err, client.ConnectionState().NegotiatedProtocol)
				}
				if _, err := io.WriteString(client, tc.sends); err != nil {
					t.Fatal(err)
				}
				if tc.reads {
					go func() { _, _ = io.Copy(io.Discard, client) }()
				}
				server.letGo(t, tc.within)
				server.end()
			})
		})
	}
}
