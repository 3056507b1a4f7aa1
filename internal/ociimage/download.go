package ociimage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cenkalti/backoff/v5"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/powernode/powernode-agent/internal/fault"
)

// download reads a blob from a registry and doesn't let broken connections show: it asks for the
// rest. It ends with EOF after the blob's size, whatever else the registry would send, and with
// an error after too many failures in a row.
type download struct {
	ctx    context.Context
	host   string
	doing  string
	size   int64
	offset int64
	open   func(ctx context.Context, offset int64) (io.ReadCloser, error)
	retry  Retrying
	body   io.ReadCloser
	failed int
	wait   *backoff.ExponentialBackOff
}

func (c *Client) newDownload(ctx context.Context, r *remote.Repository, d ocispec.Descriptor) *download {
	return &download{
		ctx:   ctx,
		host:  r.Reference.Registry,
		doing: fmt.Sprintf("download %s of %s/%s", d.Digest, r.Reference.Registry, r.Reference.Repository),
		size:  d.Size,
		open: func(ctx context.Context, offset int64) (io.ReadCloser, error) {
			return c.get(ctx, r, d, offset)
		},
		retry: c.options.Retry,
		wait:  c.newBackOff(),
	}
}

// Read reads on from wherever the last connection broke.
func (d *download) Read(p []byte) (int, error) {
	for {
		if d.offset >= d.size {
			return 0, io.EOF
		}
		n, err := d.read(p[:min(int64(len(p)), d.size-d.offset)])
		if n > 0 {
			d.offset += int64(n)
			d.failed = 0
			d.wait.Reset()
			return n, nil
		}
		if err == nil {
			continue
		}
		if err := d.pause(err); err != nil {
			return 0, err
		}
	}
}

// read makes one attempt. A body that failed is closed.
func (d *download) read(p []byte) (int, error) {
	if d.body == nil {
		body, err := d.open(d.ctx, d.offset)
		if err != nil {
			return 0, err
		}
		d.body = body
	}
	n, err := d.body.Read(p)
	if err != nil {
		_ = d.body.Close() // the connection is of no more use
		d.body = nil
	}
	return n, err
}

// pause decides about a failure: nil, after a while, to try again.
func (d *download) pause(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fault.New(fault.Retry, fault.Platform, "check the network between here and "+d.host,
			"the connection ended after %d of %d bytes", d.offset, d.size)
	}
	err = classify(err, d.host, d.doing)
	d.failed++
	if fault.KindOf(err) != fault.Retry || d.failed >= d.retry.Attempts {
		return err
	}
	timer := time.NewTimer(d.wait.NextBackOff())
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-d.ctx.Done():
		return fmt.Errorf("%s: %w", d.doing, context.Cause(d.ctx))
	}
}

// Close ends the connection, if one is open.
func (d *download) Close() error {
	if d.body == nil {
		return nil
	}
	err := d.body.Close()
	d.body = nil
	return err
}
