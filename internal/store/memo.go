package store

import (
	"bytes"
	"errors"
	"io/fs"
	"sync"

	"github.com/powernode/powernode-agent/internal/durable"
)

// memo remembers what records say, by their bytes. A change reads those of all generations and modules several times, and taking
// them apart takes far longer than reading them.
type memo[T any] struct {
	mu    sync.Mutex
	known map[string]remembered[T]
}

type remembered[T any] struct {
	data  []byte
	value T
}

// read is readRecord. What the value refers to is shared by all readers.
func (m *memo[T]) read(dir *durable.Dir, name string) (T, error) {
	var value T
	path := dir.Path() + "/" + name
	data, err := dir.ReadFile(name, recordLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return value, err
	}
	if err != nil {
		return value, damaged(path, err)
	}
	m.mu.Lock()
	r, ok := m.known[path]
	m.mu.Unlock()
	if ok && bytes.Equal(r.data, data) {
		return r.value, nil
	}
	if err := openRecord(data, &value); err != nil {
		return value, damaged(path, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil {
		m.known = make(map[string]remembered[T])
	}
	m.known[path] = remembered[T]{data, value}
	return value, nil
}
