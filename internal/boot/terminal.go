package boot

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// typedMax bounds a line that is typed; what is longer is cut.
const typedMax = 256

// terminal reads what a person types on the console, and holds nobody up: lines come from a
// channel, and reading can be stopped while somebody else has the console.
type terminal struct {
	in interface {
		io.Reader
		SetReadDeadline(t time.Time) error
	}
	lines chan string
	stop  chan struct{} // closed to stop the reader that runs; nil while none does
	done  sync.WaitGroup
}

func newTerminal(in *os.File) *terminal { return &terminal{in: in, lines: make(chan string)} }

// begin starts reading, if nobody is.
func (t *terminal) begin() {
	if t.stop != nil {
		return
	}
	if err := t.in.SetReadDeadline(time.Time{}); err != nil {
		return // a console that can't be waited for has no prompt
	}
	t.stop = make(chan struct{})
	stop := t.stop
	t.done.Go(func() { t.read(stop) })
}

// end stops reading and returns once nobody reads any more.
func (t *terminal) end() {
	if t.stop == nil {
		return
	}
	close(t.stop)
	_ = t.in.SetReadDeadline(time.Unix(1, 0))
	t.done.Wait()
	t.stop = nil
}

func (t *terminal) read(stop <-chan struct{}) {
	var line strings.Builder
	buf := make([]byte, 256)
	for {
		n, err := t.in.Read(buf)
		for _, c := range buf[:n] {
			if c != '\n' && c != '\r' {
				if line.Len() < typedMax {
					line.WriteByte(c)
				}
				continue
			}
			select {
			case t.lines <- line.String():
			case <-stop:
				return
			}
			line.Reset()
		}
		if err == nil {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) {
			return
		}
		// An end of input is a person's ^D, or a serial line that was hung up and may come back.
		select {
		case <-time.After(time.Second):
		case <-stop:
			return
		}
	}
}
