package api

import (
	"net/http"
	"regexp"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// maxEvents bounds the body of a call, in bytes: no field of an event takes more than six times its length in JSON.
const maxEvents = 1 << 20

var eventKindForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)

// nodeEvents keeps what a node tells.
func (a *API) nodeEvents(w http.ResponseWriter, r *http.Request, node db.Standing) (any, error) {
	in, err := read[nodeapi.EventsRequest](w, r, maxEvents)
	if err != nil {
		return nil, err
	}
	if len(in.Events) > nodeapi.MaxEvents {
		return nil, invalid("more than %d events", nodeapi.MaxEvents)
	}
	for _, e := range in.Events {
		if err := checkEvent(e); err != nil {
			return nil, refusedAs(nodeapi.CodeEventRefused, err)
		}
	}
	if err := a.db.AddNodeEvents(r.Context(), node.NodeID, in.Events); err != nil {
		return nil, err
	}
	return nodeapi.EventsResponse{Accepted: len(in.Events)}, nil
}

// checkEvent refuses what no agent would say.
func checkEvent(e nodeapi.Event) error {
	if !looksID.MatchString(e.ID) {
		return invalid("an event's id %.80q: want a UUID in lower case", e.ID)
	}
	if len(e.Kind) > nodeapi.MaxEventKind || !eventKindForm.MatchString(e.Kind) {
		return invalid("an event's kind %.80q: want a word of at most %d bytes", e.Kind, nodeapi.MaxEventKind)
	}
	switch e.Severity {
	case nodeapi.SeverityInfo, nodeapi.SeverityWarning, nodeapi.SeverityError:
	default:
		return invalid("an event's severity %.40q: want info, warning or error", e.Severity)
	}
	// A year outside of these has no form in JSON.
	if y := e.At.Year(); y < 1970 || y > 9999 {
		return invalid("an event's time is of the year %d", y)
	}
	if err := checkText("an event's text", e.Text, nodeapi.MaxEventText, true); err != nil {
		return err
	}
	if len(e.Fields) > nodeapi.MaxEventFields {
		return invalid("an event of more than %d fields", nodeapi.MaxEventFields)
	}
	for name, value := range e.Fields {
		if err := checkText("the name of an event's field", name, nodeapi.MaxEventFieldName, true); err != nil {
			return err
		}
		if err := checkText("an event's field "+name, value, nodeapi.MaxEventFieldValue, false); err != nil {
			return err
		}
	}
	return nil
}

// listNodeEvents shows an operator what nodes told.
func (a *API) listNodeEvents(_ http.ResponseWriter, r *http.Request) (any, error) {
	which, err := a.listQuery(r)
	if err != nil {
		return nil, err
	}
	rows, err := a.db.NodeEvents(r.Context(), which.nodeID, which.limit)
	if err != nil {
		return nil, err
	}
	list := operatorapi.NodeEventList{Events: []operatorapi.NodeEvent{}, Count: len(rows)}
	for _, e := range rows {
		list.Events = append(list.Events, operatorapi.NodeEvent{
			ID: e.ID, NodeID: e.NodeID, NodeName: e.NodeName, At: e.At, ReceivedAt: e.ReceivedAt, Kind: e.Kind, Severity: string(e.Severity), Text: e.Text, Fields: e.Fields,
		})
	}
	return list, nil
}
