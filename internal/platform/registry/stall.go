package registry

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// A blob may take hours over a slow line, so there is no bound on the whole. What is bounded is a
// standstill: a caller that neither takes nor gives a byte for stallTimeout loses its connection.
const (
	stallTimeout = time.Minute
	// stallStep is how often, at most, a deadline is moved.
	stallStep = 5 * time.Second
	// workTimeout is how long after the last byte of a body its answer may take: the time in
	// which a slow disk makes a large blob durable.
	workTimeout = 15 * time.Minute
)

// A connection without deadlines, as in tests without a network, can't stall either: errors of
// setting one are left aside below.

type movingWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	moved   time.Time
}

func (w *movingWriter) move() {
	if now := time.Now(); now.Sub(w.moved) >= stallStep {
		_ = w.control.SetWriteDeadline(now.Add(stallTimeout))
		w.moved = now
	}
}

// WriteHeader moves the deadline before the first byte, after which the body's may have passed.
func (w *movingWriter) WriteHeader(status int) {
	w.move()
	w.ResponseWriter.WriteHeader(status)
}

// Write moves the deadline with each piece that goes out.
func (w *movingWriter) Write(p []byte) (int, error) {
	w.move()
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *movingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

type movingBody struct {
	io.ReadCloser
	control *http.ResponseController
	moved   time.Time
}

// Read moves the deadline of reading, and with it that of the answer, which a server counts from
// the request's beginning. At the end no deadline stays on reading: its passing would be taken
// for the caller's going away while the registry still works. What can't be read to its end isn't
// read on: net/http would after the answer, to use the connection again, and without a bound.
func (b *movingBody) Read(p []byte) (int, error) {
	if now := time.Now(); now.Sub(b.moved) >= stallStep {
		_ = b.control.SetReadDeadline(now.Add(stallTimeout))
		_ = b.control.SetWriteDeadline(now.Add(workTimeout))
		b.moved = now
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		var none time.Time
		if !errors.Is(err, io.EOF) {
			none = time.Now()
		}
		_ = b.control.SetReadDeadline(none)
		_ = b.control.SetWriteDeadline(time.Now().Add(workTimeout))
	}
	return n, err
}

// keepMoving puts the deadlines on a request's body, also one that nobody reads, and on its answer.
func keepMoving(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
	control := http.NewResponseController(w)
	if r.Body != nil && r.Body != http.NoBody {
		// Sooner than that of an answer, for which net/http waits for the body.
		_ = control.SetReadDeadline(time.Now().Add(stallTimeout / 2))
		r.Body = &movingBody{ReadCloser: r.Body, control: control}
	}
	return &movingWriter{ResponseWriter: w, control: control}
}
