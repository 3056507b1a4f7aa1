package platform

import (
	"context"
	"sync"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/platform/ca"
	"github.com/powernode/powernode-agent/internal/platform/replica"
)

// openAuthority opens the certificate authority in the data directory; over PostgreSQL, the one that the database belongs to.
func (s *Server) openAuthority(ctx context.Context, o Options) (*ca.CA, error) {
	dir, err := s.sub(caName)
	if err != nil {
		return nil, err
	}
	if o.Database == nil {
		s.ca, err = ca.Open(dir, o.Now)
		return s.ca, err
	}
	s.replica, err = replica.Join(ctx, replica.Options{Records: s.db, Dir: dir, Secret: o.SharedSecret, Now: o.Now, Logger: s.log})
	if err != nil {
		return nil, err
	}
	s.ca = s.replica.CA()
	return s.ca, nil
}

// openBlobs opens the directory of the registry's bytes.
func (s *Server) openBlobs(path string) (*durable.Dir, error) {
	if path == "" {
		return s.sub(blobsName)
	}
	dir, err := durable.MakeDir(path, 0o700, nil)
	if err != nil {
		if fault.HintOf(err) == "" {
			err = fault.New(fault.Refuse, fault.Input, "name another directory with --registry-dir", "%w", err)
		}
		return nil, err
	}
	s.closers = append(s.closers, dir.Close)
	// Not swept: other platforms write there, and what a killed one leaves has no name.
	return dir, nil
}

// caChanged does what follows from a change of the authorities that an operator made here.
func (s *Server) caChanged(ctx context.Context) error {
	if s.replica != nil {
		if err := s.replica.Tell(ctx); err != nil {
			return err
		}
	}
	return s.ensureOperator(ctx, s.ca.Bundle(), false)
}

// follow takes over what other platforms change until the server is closed.
func (s *Server) follow(ctx context.Context) {
	if s.replica == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var following sync.WaitGroup
	following.Go(func() {
		s.replica.Follow(ctx, func(ctx context.Context) error { return s.ensureOperator(ctx, s.ca.Bundle(), false) })
	})
	s.closers = append(s.closers, func() error {
		cancel()
		following.Wait()
		return nil
	})
}
