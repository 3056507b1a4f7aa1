package cli

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Outlive has the program outlive its terminal, and whoever reads what it prints, until stop is called: for what is worse
// half done than done with nobody looking, as behind an ssh connection that it may end itself. A SIGHUP is told of once, where
// somebody still reads that, with what comes of it. Programs that are started meanwhile inherit nothing of it. To print what nobody reads
// is an error like any, also after stop: what was done stays done.
func (a *App) Outlive(program, what string) (stop func()) {
	signals := make(chan os.Signal, 1)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		signal.Notify(signals, syscall.SIGHUP)
	}
	// Without this the Go runtime ends the program at a write to standard output or error that nobody reads.
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		told := false
		for {
			select {
			case <-over:
				return
			case <-signals:
				if !told {
					// An error says that nobody is there to hear of it.
					_, _ = fmt.Fprintf(a.Err, "%s: hung up: %s\n", program, what)
				}
				told = true
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(over)
		<-done
	}
}
