package agentcli

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
)

// What a command says while it runs for a task is in a file of the directory of the boot, which the service follows. The file begins
// with the task's ID; a full one makes way for the next, which nobody has to have read in between: there are never more than
// two of them.

// maxWords bounds such a file, in bytes.
const maxWords = 256 << 10

func wordsName(unit string) string { return unit + ".said" }

// taskWords writes such a file. Whoever has the lock of the unit may.
type taskWords struct {
	dir      string
	name, id string

	mu   sync.Mutex
	f    *os.File // nil where there is no room for one
	size int
}

// openWords begins the file anew. A command isn't kept from anything because nobody hears it.
func openWords(runDir, unit, id string) *taskWords {
	w := &taskWords{dir: runDir, name: wordsName(unit), id: id}
	w.next()
	return w
}

// next puts a new file in the place of the present one.
func (w *taskWords) next() {
	if w.f != nil {
		_ = w.f.Close()
	}
	w.f, w.size = nil, 0
	// The directory is of the boot: nothing in it is to outlast a power cut.
	f, err := os.CreateTemp(w.dir, ".said-")
	if err != nil {
		return
	}
	if _, err = f.WriteString(w.id + "\n"); err == nil {
		err = os.Rename(f.Name(), filepath.Join(w.dir, w.name))
	}
	if err != nil {
		_ = os.Remove(f.Name())
		_ = f.Close()
		return
	}
	w.f = f
}

// Write implements io.Writer; it returns no error.
func (w *taskWords) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for rest := p; len(rest) > 0; {
		if w.size >= maxWords {
			w.next()
		}
		if w.f == nil {
			break
		}
		n, err := w.f.Write(rest[:min(len(rest), maxWords-w.size)])
		w.size, rest = w.size+n, rest[n:]
		if err != nil {
			break
		}
	}
	return len(p), nil
}

// Close ends it; the file stays until the next task.
func (w *taskWords) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f != nil {
		_ = w.f.Close()
	}
	w.f = nil
}

// wordsReader follows what a task's command says.
type wordsReader struct {
	dir      *durable.Dir
	name, id string
	f        *os.File
}

// read writes what is new to out.
func (r *wordsReader) read(out io.Writer) {
	for range 4 { // there is no hurry: what comes meanwhile is read the next time
		if r.f == nil && !r.open() {
			return
		}
		_, _ = io.Copy(out, io.LimitReader(r.f, maxWords))
		mine, err := r.f.Stat()
		if err != nil {
			return
		}
		if now, err := r.dir.Root().Lstat(r.name); err != nil || os.SameFile(mine, now) {
			return
		}
		// Another is in its place, and nothing more is added to this one.
		_, _ = io.Copy(out, io.LimitReader(r.f, maxWords))
		r.close()
	}
}

// open opens the file, where it is this task's.
func (r *wordsReader) open() bool {
	f, err := r.dir.Open(r.name)
	if err != nil {
		return false
	}
	head := make([]byte, len(r.id)+1)
	if _, err := io.ReadFull(f, head); err != nil || string(head) != r.id+"\n" {
		_ = f.Close()
		return false
	}
	r.f = f
	return true
}

func (r *wordsReader) close() {
	if r.f != nil {
		_ = r.f.Close()
	}
	r.f = nil
}

// follow brings what the command of a task says to out until stop is called, which brings the rest.
func (o *outside) follow(unit, id string, out io.Writer) (stop func()) {
	dir, err := durable.OpenDir(o.runDir, nil)
	if err != nil {
		return func() {} // the command will say the same
	}
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer dir.Close()
		r := &wordsReader{dir: dir, name: wordsName(unit), id: id}
		defer r.close()
		tick := time.NewTicker(commandLook)
		defer tick.Stop()
		for {
			r.read(out)
			select {
			case <-over:
				r.read(out)
				return
			case <-tick.C:
			}
		}
	}()
	return func() {
		close(over)
		<-done
	}
}

// taskVoice hears what a command says on its standard error: an error is kept, and told like everything else.
type taskVoice struct {
	words io.Writer

	mu  sync.Mutex
	err *taskError
}

// Write implements io.Writer. An error comes as one document in one piece.
func (v *taskVoice) Write(p []byte) (int, error) {
	text := p
	var doc struct {
		Error *taskError `json:"error"`
	}
	if len(p) > 0 && p[0] == '{' && json.Unmarshal(p, &doc) == nil && doc.Error != nil {
		v.mu.Lock()
		v.err = doc.Error
		v.mu.Unlock()
		text = []byte(strings.TrimSuffix("error: "+doc.Error.Message+"; "+doc.Error.Hint, "; ") + "\n")
	}
	_, _ = v.words.Write(text) // it returns none, and the command is to go on in any case
	return len(p), nil
}

// failed returns the error that was said last, or nil.
func (v *taskVoice) failed() *taskError {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.err
}
