package ociimage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/layer"
)

func checkPulled(t *testing.T, from Source, ref Reference, o PullOptions) Stats {
	t.Helper()
	ctx := context.Background()
	image, err := from.Resolve(ctx, ref, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	root, stats, err := Pull(ctx, from, image, o)
	if err != nil {
		t.Fatal(err)
	}
	claimed, err := image.Seal()
	if err != nil {
		t.Fatal(err)
	}
	seal, err := Seal(root)
	if err != nil {
		t.Fatal(err)
	}
	if seal != claimed {
		t.Errorf("the pulled tree's seal is %s, the image claims %s", seal, claimed)
	}
	if stats.Compressed != image.Size() {
		t.Errorf("%d bytes were read, the layers have %d", stats.Compressed, image.Size())
	}
	return stats
}

func TestPushResolvePull(t *testing.T) {
	host := serve(t, newRegistry(t, true))
	c := newClient(t, Options{UserAgent: "powernode-test"})
	ref, image, _ := push(t, c, host, 100_000)
	for _, ref := range []Reference{ref, {Repository: ref.Repository, Tag: "v1"}} {
		got, err := c.Resolve(context.Background(), ref, "amd64")
		if err != nil {
			t.Fatal(err)
		}
		if got.Digest != image.Digest || got.Repository != ref.Repository || !bytes.Equal(got.Manifest, image.Manifest) || !bytes.Equal(got.Config, image.Config) || got.Index != nil {
			t.Errorf("%s resolves to %+v", ref, got)
		}
		m := newMemory()
		var mu sync.Mutex
		last := make(map[int]int64)
		stats := checkPulled(t, c, ref, PullOptions{Sink: m, Partials: m, Progress: func(i int, done, total int64) {
			mu.Lock()
			defer mu.Unlock()
			if done < last[i] || done > total {
				t.Errorf("layer %d went from %d to %d of %d", i, last[i], done, total)
			}
			last[i] = done
		}})
		if stats.Layers != 3 || stats.Objects != 3 || stats.NewObjects != 3 || stats.ObjectBytes != 300_000 || stats.Resumed != 0 {
			t.Errorf("stats are %+v", stats)
		}
		for i, d := range image.Layers {
			if last[i] != d.Size {
				t.Errorf("progress of layer %d ended at %d of %d", i, last[i], d.Size)
			}
		}
		again := checkPulled(t, c, ref, PullOptions{Sink: m})
		if again.NewObjects != 0 || again.Objects != 3 {
			t.Errorf("a second pull's stats are %+v", again)
		}
	}
}

// TestPushAgainSendsNothing counts uploads.
func TestPushAgainSendsNothing(t *testing.T) {
	inner := newRegistry(t, true)
	var uploads atomic.Int32
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			uploads.Add(1)
		}
		inner.ServeHTTP(w, r)
	}))
	c := newClient(t, Options{})
	l, image, _ := sealedLayout(t, "amd64", 1000)
	ref := Reference{Repository: host + "/modules/test", Tag: "v1"}
	for range 2 {
		if err := c.Push(context.Background(), l, image, ref, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := uploads.Load(); n != 4 {
		t.Errorf("%d uploads for 3 layers and a config", n)
	}
}

// unreliable is a registry in front of another, which serves layers as a bad network would.
type unreliable struct {
	http.Handler
	blobs map[string][]byte
	mu    sync.Mutex
	// gets counts layer requests; ranges notes their Range headers.
	gets   int
	ranges []string
	// answer serves a layer's nth GET (from 1), or returns false to have it served well.
	answer func(w http.ResponseWriter, r *http.Request, n int, content []byte) bool
}

func (u *unreliable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	content, ok := u.blobs[name]
	if r.Method != http.MethodGet || !ok {
		u.Handler.ServeHTTP(w, r)
		return
	}
	u.mu.Lock()
	u.gets++
	n := u.gets
	u.ranges = append(u.ranges, r.Header.Get("Range"))
	u.mu.Unlock()
	if u.answer != nil && u.answer(w, r, n, content) {
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

// cut sends some of the answer and breaks the connection.
func cut(w http.ResponseWriter, r *http.Request, content []byte, upTo int) bool {
	from := 0
	if spec := r.Header.Get("Range"); spec != "" {
		_, _ = fmt.Sscanf(spec, "bytes=%d-", &from)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(content)-from))
	if from > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	_, _ = w.Write(content[from:min(from+upTo, len(content))])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// newUnreliable pushes an image of layers that are worth keeping half into a registry.
func newUnreliable(t *testing.T, o Options, size int) (*unreliable, *Client, Reference) {
	t.Helper()
	u := &unreliable{Handler: newRegistry(t, true), blobs: make(map[string][]byte)}
	host := serve(t, u)
	c := newClient(t, o)
	l, image, _ := sealedLayout(t, "amd64", size)
	ref := Reference{Repository: host + "/modules/test", Tag: "v1"}
	if err := c.Push(context.Background(), l, image, ref, nil); err != nil {
		t.Fatal(err)
	}
	for _, d := range image.Layers {
		content, err := os.ReadFile(l.path + "/" + blobPath(d.Digest))
		if err != nil {
			t.Fatal(err)
		}
		u.blobs[string(d.Digest)] = content
	}
	ref.Digest = image.Digest
	return u, c, ref
}

func TestPullThroughABadNetwork(t *testing.T) {
	const size = 300_000
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request, n int, content []byte) bool{
		"cut again and again": func(w http.ResponseWriter, r *http.Request, n int, content []byte) bool {
			return n%3 != 0 && cut(w, r, content, 50_000)
		},
		"busy at times": func(w http.ResponseWriter, r *http.Request, n int, _ []byte) bool {
			if n%2 == 1 {
				w.WriteHeader([]int{500, 502, 503, 429, 408}[n%5])
			}
			return n%2 == 1
		},
		"closed without an answer": func(w http.ResponseWriter, _ *http.Request, n int, _ []byte) bool {
			if n%3 != 0 {
				panic(http.ErrAbortHandler)
			}
			return false
		},
		"ranges ignored": func(w http.ResponseWriter, r *http.Request, n int, content []byte) bool {
			if n%4 != 0 {
				r.Header.Del("Range")
				return cut(w, r, content, 70_000*(n%4+1))
			}
			_, _ = w.Write(content)
			return true
		},
		"short ranges": func(w http.ResponseWriter, r *http.Request, _ int, content []byte) bool {
			from := 0
			_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
			to := min(from+99_999, len(content)-1)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(content)))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(content[from : to+1])
			return true
		},
		"no length": func(w http.ResponseWriter, _ *http.Request, _ int, content []byte) bool {
			w.(http.Flusher).Flush()
			_, _ = w.Write(content)
			return true
		},
		"more than the blob": func(w http.ResponseWriter, _ *http.Request, _ int, content []byte) bool {
			w.(http.Flusher).Flush()
			_, _ = w.Write(content)
			_, _ = io.WriteString(w, strings.Repeat("x", 1000))
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			u, c, ref := newUnreliable(t, Options{}, size)
			u.answer = answer
			checkPulled(t, c, ref, PullOptions{Sink: layer.Discard{}, Parallel: 1})
		})
	}
}

func TestPullFails(t *testing.T) {
	status := func(code int) func(http.ResponseWriter, *http.Request, int, []byte) bool {
		return func(w http.ResponseWriter, _ *http.Request, _ int, _ []byte) bool {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}`)
			return true
		}
	}
	for name, test := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request, n int, content []byte) bool
		kind   fault.Kind
		area   fault.Area
		want   string
	}{
		"always cut":   {func(w http.ResponseWriter, r *http.Request, _ int, content []byte) bool { return cut(w, r, content, 0) }, fault.Retry, fault.Platform, "connection ended after 0 of"},
		"always busy":  {status(503), fault.Retry, fault.Platform, "slow down"},
		"unauthorized": {status(401), fault.Refuse, fault.Platform, "401"},
		"forbidden":    {status(403), fault.Refuse, fault.Platform, "403"},
		"gone":         {status(410), fault.Refuse, fault.Platform, "410"},
		"not there":    {status(404), fault.Refuse, fault.Platform, "doesn't have it"},
		"not enough":   {status(416), fault.Refuse, fault.Verify, "fewer than the manifest's"},
		"wrong length": {func(w http.ResponseWriter, _ *http.Request, _ int, content []byte) bool {
			_, _ = w.Write(content[:1000])
			return true
		}, fault.Refuse, fault.Verify, "sends 1000 bytes where the manifest says"},
		"flipped": {func(w http.ResponseWriter, _ *http.Request, _ int, content []byte) bool {
			content = bytes.Clone(content)
			content[len(content)/2] ^= 1
			_, _ = w.Write(content)
			return true
		}, fault.Refuse, fault.Verify, "the blob's bytes are sha256:"},
		"other bytes": {func(w http.ResponseWriter, _ *http.Request, _ int, content []byte) bool {
			_, _ = w.Write(bytes.Repeat([]byte("x"), len(content)))
			return true
		}, fault.Refuse, fault.Verify, "the blob's bytes are sha256:"},
	} {
		t.Run(name, func(t *testing.T) {
			u, c, ref := newUnreliable(t, Options{}, 100_000)
			u.answer = test.answer
			image, err := c.Resolve(context.Background(), ref, "amd64")
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = Pull(context.Background(), c, image, PullOptions{Sink: layer.Discard{}, Parallel: 1})
			if err == nil {
				t.Fatal("it succeeded")
			}
			if fault.KindOf(err) != test.kind || fault.AreaOf(err) != test.area || !strings.Contains(err.Error(), test.want) {
				t.Errorf("kind %v, area %v, want %v, %v, %q: %v", fault.KindOf(err), fault.AreaOf(err), test.kind, test.area, test.want, err)
			}
			if test.kind == fault.Retry && u.gets != quick.Attempts {
				t.Errorf("%d attempts, want %d", u.gets, quick.Attempts)
			}
		})
	}
}

// TestStall has a registry that answers and then says nothing more.
func TestStall(t *testing.T) {
	u, c, ref := newUnreliable(t, Options{Retry: Retrying{Attempts: 2, Min: time.Millisecond, Max: time.Millisecond}}, 100_000)
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	var silent atomic.Bool
	silent.Store(true)
	u.answer = func(w http.ResponseWriter, r *http.Request, _ int, content []byte) bool {
		if !silent.Load() {
			return false
		}
		if r.Header.Get("Range") == "" {
			_, _ = w.Write(content[:1000])
			w.(http.Flusher).Flush()
		}
		select {
		case <-done:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	}
	image, err := c.Resolve(context.Background(), ref, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	// Only where nothing comes indeed: a slow machine takes its time for what does.
	connections := c.once.Client.Transport.(*guard)
	patience := connections.stall
	connections.stall = 400 * time.Millisecond
	_, _, err = Pull(context.Background(), c, image, PullOptions{Sink: layer.Discard{}, Parallel: 1})
	connections.stall = patience
	if err == nil || fault.KindOf(err) != fault.Retry || !strings.Contains(err.Error(), "nothing came from") {
		t.Errorf("error %v", err)
	}
	if timeout, ok := errors.AsType[*stallError](err); !ok || !timeout.Timeout() {
		t.Errorf("error %v is no timeout", err)
	}
	silent.Store(false)
	checkPulled(t, c, ref, PullOptions{Sink: layer.Discard{}})
}

// TestResume stops a pull half way and starts it again, as another process would.
func TestResume(t *testing.T) {
	const size = partialMin + 500_000
	u, c, ref := newUnreliable(t, Options{}, size)
	m := newMemory()
	image, err := c.Resolve(context.Background(), ref, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	u.answer = func(w http.ResponseWriter, r *http.Request, n int, content []byte) bool {
		if n == 1 {
			return cut(w, r, content, 700_000)
		}
		return cut(w, r, content, 0)
	}
	if _, _, err = Pull(context.Background(), c, image, PullOptions{Sink: m, Partials: m, Parallel: 1}); fault.KindOf(err) != fault.Retry {
		t.Fatalf("error %v", err)
	}
	first := string(image.Layers[0].Digest)
	if n := len(m.partials[first]); n != 700_000 {
		t.Fatalf("%d bytes were kept", n)
	}
	u.answer, u.ranges = nil, nil
	stats := checkPulled(t, c, ref, PullOptions{Sink: m, Partials: m, Parallel: 1})
	if stats.Resumed != 700_000 || u.ranges[0] != "bytes=700000-" || len(u.ranges) != 3 {
		t.Errorf("resumed %d bytes, ranges %q", stats.Resumed, u.ranges)
	}
	if len(m.partials) != 0 {
		t.Errorf("%d partials are left", len(m.partials))
	}
}

func TestResumeFromDamagedPartials(t *testing.T) {
	const size = partialMin + 200_000
	u, c, ref := newUnreliable(t, Options{}, size)
	image, err := c.Resolve(context.Background(), ref, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	first := image.Layers[0]
	whole := u.blobs[string(first.Digest)]
	for name, test := range map[string]struct {
		partial []byte
		resumed int64
	}{
		"complete":      {bytes.Clone(whole), first.Size},
		"zeros":         {make([]byte, 600_000), 0},
		"zeros at end":  {append(bytes.Clone(whole[:500_000]), make([]byte, 4096)...), 0},
		"another blob":  {bytes.Clone(u.blobs[string(image.Layers[1].Digest)][:first.Size]), 0},
		"longer":        {append(bytes.Clone(whole), 0), 0},
		"one byte less": {bytes.Clone(whole[:len(whole)-1]), first.Size - 1},
	} {
		m := newMemory()
		m.partials[string(first.Digest)] = test.partial
		stats := checkPulled(t, c, ref, PullOptions{Sink: m, Partials: m})
		if stats.Resumed != test.resumed {
			t.Errorf("%s: resumed %d bytes, want %d", name, stats.Resumed, test.resumed)
		}
		if len(m.partials) != 0 {
			t.Errorf("%s: %d partials are left", name, len(m.partials))
		}
	}
	// Bytes that are wrong at their source aren't kept.
	u.blobs[string(first.Digest)] = make([]byte, len(whole))
	m := newMemory()
	m.partials[string(first.Digest)] = whole[:1000]
	if _, _, err := Pull(context.Background(), c, image, PullOptions{Sink: m, Partials: m, Parallel: 1}); !isDamage(err) {
		t.Errorf("error %v", err)
	}
	if len(m.partials[string(first.Digest)]) != 0 {
		t.Error("wrong bytes were kept")
	}
}

// TestFullDiskForPartials goes on without keeping.
func TestFullDiskForPartials(t *testing.T) {
	_, c, ref := newUnreliable(t, Options{}, partialMin+1000)
	m := newMemory()
	m.fail = errors.New("no space left on device")
	checkPulled(t, c, ref, PullOptions{Sink: m, Partials: m})
}

func TestCancelledPull(t *testing.T) {
	u, c, ref := newUnreliable(t, Options{}, partialMin+1000)
	image, err := c.Resolve(context.Background(), ref, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	u.answer = func(w http.ResponseWriter, r *http.Request, _ int, content []byte) bool {
		cancel()
		return cut(w, r, content, 10)
	}
	if _, _, err := Pull(ctx, c, image, PullOptions{Sink: layer.Discard{}}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// TestRepeatedLayers builds an image with one layer three times.
func TestRepeatedLayers(t *testing.T) {
	m := newMemory()
	l, err := CreateLayout(t.TempDir() + "/layout")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, err := l.AddLayer(context.Background(), treeOf(t, m, tarEntry{"usr/", ""}, tarEntry{"usr/x", noise(1, 500)}), layer.WriteOptions{Open: m.open})
	if err != nil {
		t.Fatal(err)
	}
	image, err := l.AddImage(ImageSpec{Architecture: "amd64", Layers: []layer.Descriptor{d, d, d}})
	if err != nil {
		t.Fatal(err)
	}
	root, stats, err := Pull(context.Background(), l, image, PullOptions{Sink: m})
	if err != nil {
		t.Fatal(err)
	}
	if stats.Layers != 1 || stats.Objects != 1 || root.Lookup("usr/x") == nil {
		t.Errorf("stats are %+v", stats)
	}
}
