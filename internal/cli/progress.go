package cli

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// Progress shows how far work of more than a second is: bars on a terminal, and plain lines, one
// when a part begins and one when it ends, everywhere else. It is an io.Writer for what is to be
// said meanwhile: whole lines, which go above the bars.
type Progress struct {
	w     io.Writer
	bars  *mpb.Progress
	quiet bool
	mu    sync.Mutex
}

// Part is one piece of work within a Progress.
type Part struct {
	progress *Progress
	name     string
	begun    time.Time
	bar      *mpb.Bar

	mu   sync.Mutex
	done int64
}

// narrowest is the width in columns below which a terminal gets plain lines: no bar fits, and a
// serial console says that it has no width at all.
const narrowest = 40

// NewProgress returns a Progress on the App's standard error. Close ends it.
func (a *App) NewProgress() *Progress {
	p := &Progress{w: a.Err, quiet: a.Quiet}
	if file, ok := a.Err.(*os.File); ok && !a.Quiet && a.Getenv("TERM") != "dumb" {
		if width, _, err := term.GetSize(int(file.Fd())); err == nil && width >= narrowest {
			p.bars = mpb.New(mpb.WithOutput(file), mpb.WithWidth(min(width, 100)))
		}
	}
	return p
}

// Write prints whole lines, above the bars if there are any. It prints when progress is quiet, too.
func (p *Progress) Write(lines []byte) (int, error) {
	if p.bars != nil {
		return p.bars.Write(lines)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.w.Write(lines)
}

// Unwrap returns where the lines go.
func (p *Progress) Unwrap() io.Writer { return p.w }

// Start begins a part of total bytes; total 0 means that it has no size, and gets no bar.
func (p *Progress) Start(name string, total int64) *Part {
	part := &Part{progress: p, name: name, begun: time.Now()}
	switch {
	case p.quiet:
	case p.bars != nil && total > 0:
		part.bar = p.bars.AddBar(total,
			mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f")))
	default:
		p.line("%s ...", name)
	}
	return part
}

// Add says that n more bytes are done.
func (part *Part) Add(n int64) {
	part.mu.Lock()
	part.done += n
	part.mu.Unlock()
	if part.bar != nil {
		part.bar.IncrInt64(n)
	}
}

// Done ends the part; err, if any, is not printed here.
func (part *Part) Done(err error) {
	part.mu.Lock()
	done := part.done
	part.mu.Unlock()
	took := time.Since(part.begun).Round(10 * time.Millisecond)
	switch {
	case part.progress.quiet:
	case part.bar != nil && err != nil:
		part.bar.Abort(false)
	case part.bar != nil:
		part.bar.SetTotal(done, true)
	case err != nil:
		part.progress.line("%s: failed after %s", part.name, took)
	case done > 0:
		part.progress.line("%s: %s in %s", part.name, Bytes(uint64(done)), took)
	default:
		part.progress.line("%s: %s", part.name, took)
	}
	if part.bar != nil {
		part.bar.Wait() // what is printed next must not be drawn over
	}
}

// Close waits until every bar is drawn. Nothing may be shown afterwards, and results are printed
// only then.
func (p *Progress) Close() {
	if p.bars != nil {
		p.bars.Wait()
	}
}

func (p *Progress) line(format string, args ...any) {
	_, _ = fmt.Fprintf(p, format+"\n", args...)
}
