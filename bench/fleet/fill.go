package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/gob"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/platform/ca"
	"github.com/powernode/powernode-agent/internal/platform/db"
	"github.com/powernode/powernode-agent/internal/platform/replica"
	"github.com/powernode/powernode-agent/internal/platform/secretfile"
	"github.com/powernode/powernode-agent/internal/secret"
)

// fillers is how many nodes are enrolled at the same time: PostgreSQL writes them together.
const fillers = 8

type fillOptions struct {
	Dir, Database, SecretFile string
	Nodes                     int
}

// credentials is what a fleet needs to be one.
type credentials struct {
	// Authorities is the CA bundle, PEM.
	Authorities []byte
	Nodes       []identity
}

// identity is a node's certificate and key.
type identity struct {
	ID, Name    string
	Certificate []byte // DER
	Key         ed25519.PrivateKey
}

func (c *credentials) write(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return gob.NewEncoder(f).Encode(c)
}

func readCredentials(path string) (*credentials, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var c credentials
	return &c, gob.NewDecoder(f).Decode(&c)
}

// fill makes the database and the authority of a platform that hasn't been started yet, and enrolls nodes there by what the platform itself does
// for that. Over HTTP the platform would let an address enroll a few a second.
func fill(ctx context.Context, o fillOptions) (c *credentials, err error) {
	options := db.Options{Path: o.Dir + "/platform.db", Now: time.Now}
	if o.Database != "" {
		if options.Postgres, err = db.ParsePostgres(o.Database, ""); err != nil {
			return nil, err
		}
	}
	dir, err := durable.MakeDir(o.Dir, 0o700, nil)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	records, err := db.Open(ctx, options)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, records.Close()) }()
	sub, err := dir.MakeSub("ca", 0o700, "ca")
	if err != nil {
		return nil, err
	}
	defer sub.Close()
	authority, err := openAuthority(ctx, o, records, sub)
	if err != nil {
		return nil, err
	}
	c = &credentials{Authorities: authority.Bundle(), Nodes: make([]identity, o.Nodes)}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fillers)
	for i := range c.Nodes {
		group.Go(func() error {
			var err error
			c.Nodes[i], err = enroll(ctx, records, authority, fmt.Sprintf("node-%05d", i))
			return err
		})
	}
	return c, group.Wait()
}

// openAuthority opens the authority as the platform will.
func openAuthority(ctx context.Context, o fillOptions, records *db.DB, dir *durable.Dir) (*ca.CA, error) {
	if o.Database == "" {
		return ca.Open(dir, time.Now)
	}
	var shared secret.Text
	if o.SecretFile != "" {
		var err error
		if shared, err = secretfile.Read(o.SecretFile, "-shared-secret-file"); err != nil {
			return nil, err
		}
	}
	r, err := replica.Join(ctx, replica.Options{Records: records, Dir: dir, Secret: shared, Now: time.Now})
	if err != nil {
		return nil, err
	}
	return r.CA(), nil
}

// enroll makes a node and its certificate.
func enroll(ctx context.Context, records *db.DB, authority *ca.CA, name string) (identity, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return identity{}, err
	}
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return identity{}, err
	}
	node, err := records.CreateNode(ctx, name, "amd64")
	if err != nil {
		return identity{}, err
	}
	token := rand.Text()
	if _, err := records.CreateToken(ctx, node.ID, token, time.Hour); err != nil {
		return identity{}, err
	}
	cert, err := records.Enroll(ctx, db.Enrollment{
		Token: token, KeyHash: sha256.Sum256(spki), Architecture: "amd64", From: "127.0.0.1",
		Issue: func(nodeID string) (db.Certificate, error) {
			leaf, err := authority.IssueNode(nodeID, ca.Request{Key: public, KeyHash: sha256.Sum256(spki)}, 0)
			return db.Certificate{
				Serial: leaf.Serial, Fingerprint: leaf.Fingerprint, PEM: string(leaf.PEM), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
			}, err
		},
	})
	if err != nil {
		return identity{}, err
	}
	block, _ := pem.Decode([]byte(cert.PEM))
	return identity{ID: node.ID, Name: name, Certificate: block.Bytes, Key: key}, nil
}
