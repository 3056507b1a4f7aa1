package event

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// DroppedKind is the kind of the event that says how many others were given up.
const DroppedKind = "events.dropped"

const (
	droppedName    = "dropped.json"
	droppedVersion = 1
	maxDropped     = 4 << 10
)

// counts are numbers of events by their rank.
type counts [ranks]uint64

func (c counts) none() bool { return c == counts{} }

func (c counts) plus(o counts) counts {
	for i := range c {
		c[i] += o[i]
	}
	return c
}

// dropped is what was given up and not told, on the disk.
type dropped struct {
	Version int `json:"version"`
	// Telling is on its way: it stays as it is until it has arrived. Waiting has been given up since.
	Telling *telling `json:"telling,omitempty"`
	Waiting counts   `json:"waiting"`
}

type telling struct {
	ID     string    `json:"id"`
	At     time.Time `json:"at"`
	Counts counts    `json:"counts"`
}

// readDropped reads what was given up. A file that can't be understood is as good as none: the next count replaces it.
func (q *Queue) readDropped() (dropped, error) {
	data, err := q.dir.ReadFile(droppedName, maxDropped)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, durable.ErrTooLarge) {
		return dropped{}, err
	}
	return decodeDropped(data), nil
}

func decodeDropped(data []byte) dropped {
	var d dropped
	err := durable.DecodeJSON(data, &d)
	if err != nil || d.Version != droppedVersion || d.Telling != nil && (!isUUID(d.Telling.ID) || !inCalendar(d.Telling.At)) {
		return dropped{Version: droppedVersion}
	}
	return d
}

func (q *Queue) writeDropped(d dropped) error {
	return q.dir.WriteJSON(droppedName, d, 0o600, "events-dropped")
}

// count counts what is given up, with what couldn't be counted before.
func (q *Queue) count(given counts) error {
	given = given.plus(q.lost)
	if given.none() {
		return nil
	}
	d, err := q.readDropped()
	if err != nil {
		return err
	}
	d.Waiting = d.Waiting.plus(given)
	if err := q.writeDropped(d); err != nil {
		return err
	}
	q.lost = counts{}
	return nil
}

// given returns the event that says what was given up, nil where nothing was.
func (q *Queue) given() (*nodeapi.Event, error) {
	d, err := q.readDropped()
	if err != nil {
		return nil, err
	}
	if d.Telling == nil {
		if d.Waiting.none() {
			return nil, nil
		}
		// Its ID and its numbers are on the disk before they are told: what is told twice is the same.
		d.Telling, d.Waiting = &telling{newID(""), q.o.Now().UTC(), d.Waiting}, counts{}
		if err := q.writeDropped(d); err != nil {
			return nil, err
		}
	}
	c := d.Telling.Counts
	all := uint64(0)
	for _, n := range c {
		all += n
	}
	e := nodeapi.Event{
		ID: d.Telling.ID, At: d.Telling.At, Kind: DroppedKind, Severity: nodeapi.SeverityWarning,
		Text:   fmt.Sprintf("%d events of this node were given up before they could be told: there was no room, they were damaged, or the platform refused them", all),
		Fields: map[string]string{},
	}
	if c[rankAudit] > 0 {
		e.Severity = nodeapi.SeverityError
	}
	for r, name := range [ranks]string{"info", "warning", "error", "audit"} {
		if c[r] > 0 {
			e.Fields[name] = strconv.FormatUint(c[r], 10)
		}
	}
	return &e, check(e)
}

// takeBack takes down that the platform doesn't take the event that says what was given up, by its ID: the next one says it.
func (q *Queue) takeBack(refused string) error {
	if refused == "" {
		return nil
	}
	d, err := q.readDropped()
	if err != nil || d.Telling == nil || d.Telling.ID != refused {
		return err
	}
	d.Waiting, d.Telling = d.Waiting.plus(d.Telling.Counts), nil
	return q.writeDropped(d)
}

// forget takes down that the platform has what was given up, by the ID of the event that said it.
func (q *Queue) forget(told string) error {
	if told == "" {
		return nil
	}
	d, err := q.readDropped()
	if err != nil || d.Telling == nil || d.Telling.ID != told {
		return err
	}
	d.Telling = nil
	if d.Waiting.none() {
		return q.dir.Remove(droppedName, "events-dropped")
	}
	return q.writeDropped(d)
}
