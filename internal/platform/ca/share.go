package ca

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/powernode/powernode-agent/internal/durable"
)

// shared is what several platforms have in common: the record, and each key with its certificate by the name of its file.
type shared struct {
	Record record            `json:"record"`
	Units  map[string]string `json:"units"`
}

// Export returns all authorities with their keys, for another platform's Install or Import. It is secret.
func (c *CA) Export() ([]byte, error) {
	v := c.view.Load()
	out := shared{Record: v.record(), Units: map[string]string{}}
	for _, a := range v.list {
		if a.key == nil {
			continue
		}
		data, err := a.encodeUnit()
		if err != nil {
			return nil, fmt.Errorf("encode an authority: %w", err)
		}
		out.Units[a.unit] = string(data)
	}
	return json.Marshal(out)
}

// Origin returns the ID of the first authority. It stays the same for the life of a platform, and differs between platforms.
func (c *CA) Origin() string { return c.view.Load().list[0].id }

// OriginIn returns what Origin would of the authorities in dir, or "" where dir never had any.
func OriginIn(dir *durable.Dir) (string, error) {
	var r record
	err := dir.ReadJSON(recordName, recordLimit, &r)
	switch {
	case err == nil && len(r.Authorities) > 0:
		return r.Authorities[0].ID, nil
	case err == nil:
		return "", broken(recordName, errors.New("it names no authority"))
	case !errors.Is(err, fs.ErrNotExist):
		return "", broken(recordName, err)
	}
	a, err := readUnit(dir, firstUnit)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return a.id, nil
}

// Install puts what Export returned into dir, in place of what is there: the keys first, and then, at once, the record that names them.
// Nobody may have dir open as a CA.
func Install(dir *durable.Dir, exported []byte) error {
	var in shared
	if err := json.Unmarshal(exported, &in); err != nil {
		return fmt.Errorf("read another platform's authorities: %w", err)
	}
	for _, e := range in.Record.Authorities {
		if e.Unit == "" {
			continue
		}
		if e.Unit != firstUnit && (e.Unit != unitPrefix+e.ID+unitSuffix || strings.ContainsAny(e.ID, "/\x00")) {
			return fmt.Errorf("another platform's authorities: %.40q is no name of a key", e.Unit)
		}
		a, err := parseUnit([]byte(in.Units[e.Unit]))
		if err != nil {
			return fmt.Errorf("another platform's authority %s: %w", e.ID, err)
		}
		if have, err := readUnit(dir, e.Unit); err == nil && have.cert.Equal(a.cert) && have.key.Equal(a.key) {
			continue
		}
		if err := writeUnit(dir, e.Unit, a); err != nil {
			return fmt.Errorf("write another platform's authority: %w", err)
		}
	}
	if err := dir.WriteJSON(recordName, in.Record, 0o600, "ca-record"); err != nil {
		return fmt.Errorf("record the authorities: %w", err)
	}
	return nil
}

// Import is Install for an open CA, which has these authorities from then on. It reports whether that changed anything.
func (c *CA) Import(exported []byte) (changed bool, err error) {
	have, err := c.Export()
	if err != nil || bytes.Equal(have, exported) {
		return false, err
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	if err := Install(c.dir, exported); err != nil {
		return false, err
	}
	list, err := readAuthorities(c.dir, c.now())
	if err != nil {
		return false, err
	}
	v, err := newView(list)
	if err != nil {
		return false, broken(recordName, err)
	}
	c.view.Store(v)
	return true, c.tidy()
}
