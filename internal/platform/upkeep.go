package platform

import (
	"context"
	"sync"
	"time"
)

// upkeepInterval is how often the platform looks for what the passing of time has ended.
const upkeepInterval = time.Minute

// keepUp does what nobody's call does, now and each upkeepInterval, until the server is closed. Several platforms over one database
// may do it at the same time.
func (s *Server) keepUp(ctx context.Context) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var keeping sync.WaitGroup
	keeping.Go(func() {
		again := time.NewTicker(upkeepInterval)
		defer again.Stop()
		for {
			s.expireTasks(ctx)
			select {
			case <-again.C:
			case <-ctx.Done():
				return
			}
		}
	})
	s.closers = append(s.closers, func() error {
		cancel()
		keeping.Wait()
		return nil
	})
}

// expireTasks gives up the tasks that nobody has come for in time.
func (s *Server) expireTasks(ctx context.Context) {
	nodes, err := s.db.ExpireTasks(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		s.log.Error("tasks that nobody came for couldn't be given up", "error", err, "again_in", upkeepInterval)
	case nodes > 0:
		s.log.Info("gave up tasks that their nodes didn't come for in time", "nodes", nodes)
	}
}
