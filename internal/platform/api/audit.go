package api

import (
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

const (
	// maxAuditText bounds each text of an entry of the audit log, in bytes.
	maxAuditText = 512
	// auditedAttempts is how many entries a minute of one operator are about what was refused. What is beyond goes to the log only: a token
	// that may read must not push out what is known of the others.
	auditedAttempts = 60
)

// audited answers an operator's call if the role is enough. A call that changes something is in the audit log: in the transaction of
// its first change where that is the database's, and by itself where it isn't, or where it was refused. One that finds all as it is to be
// isn't.
func (a *API) audited(w http.ResponseWriter, r *http.Request, o db.Operator, route OperatorRoute) (any, error) {
	if route.Action == "" {
		if err := permit(o, route.Role); err != nil {
			return nil, err
		}
		return route.serve(a, w, r)
	}
	intent := &db.Intent{Entry: auditEntry(r, o, route.Action)}
	intent.Entry.Result, intent.Entry.Target = db.AuditOK, auditTarget(r)
	r = r.WithContext(db.WithIntent(r.Context(), intent))
	r.Body = &noted{ReadCloser: r.Body, into: &intent.Entry.Request}
	err := permit(o, route.Role)
	var data any
	if err == nil {
		data, err = route.serve(a, w, r)
	}
	if err == nil && (intent.Written || intent.Idle) {
		return data, nil
	}
	entry := intent.Entry
	if err != nil {
		p := a.problemOf(r, err)
		// What is told is what is logged: problemOf has logged the rest.
		entry.Result, entry.Error, err = string(p.code), clip(p.text, maxAuditText), p
		if !a.attempts.allow(o.Name) {
			a.log.Warn("refused to an operator", "by", o.Name, "from", host(r), "action", route.Action, "target", entry.Target, "result", entry.Result)
			return nil, err
		}
	}
	// Also for who has gone: it was tried, or done.
	if auditErr := a.db.RecordAudit(context.WithoutCancel(r.Context()), entry); auditErr != nil {
		a.log.Error("the audit log can't be written", "by", o.Name, "from", host(r), "action", route.Action, "target", entry.Target, "result", entry.Result, "error", auditErr)
		if err == nil {
			err = auditErr
		}
	}
	return data, err
}

// auditEntry says who does something.
func auditEntry(r *http.Request, o db.Operator, action string) db.Audit {
	return db.Audit{Actor: o.Name, Role: o.Role, Address: host(r), Action: action, RequestID: RequestID(r.Context())}
}

// auditTarget is what the path names.
func auditTarget(r *http.Request) string {
	var names []string
	for _, part := range []string{"node", "module", "task", "code", "operator"} {
		if v := r.PathValue(part); v != "" {
			names = append(names, clip(v, 128))
		}
	}
	return strings.ToValidUTF8(strings.Join(names, " "), "?")
}

// aims says what a call is about whose path doesn't.
func aims(r *http.Request, target string) {
	if i := db.IntentOf(r.Context()); i != nil {
		i.Entry.Target = clip(target, maxAuditText)
	}
}

// noted keeps the beginning of what is read.
type noted struct {
	io.ReadCloser
	into *string
}

// Read is the body's.
func (n *noted) Read(p []byte) (int, error) {
	size, err := n.ReadCloser.Read(p)
	if room := maxAuditText - len(*n.into); room > 0 && size > 0 {
		*n.into += strings.ToValidUTF8(string(p[:min(size, room)]), "?")
	}
	return size, err
}

// listAudit shows what operators did, the newest first.
func (a *API) listAudit(_ http.ResponseWriter, r *http.Request) (any, error) {
	which, err := a.listQuery(r)
	if err != nil {
		return nil, err
	}
	query := db.AuditQuery{Actor: clip(r.URL.Query().Get(operatorapi.QueryBy), maxAuditText), Limit: which.limit}
	if query.Before, err = number(r, operatorapi.QueryBefore); err != nil {
		return nil, err
	}
	rows, err := a.db.AuditLog(r.Context(), query)
	if err != nil {
		return nil, err
	}
	list := operatorapi.AuditList{Entries: []operatorapi.AuditEntry{}, Count: len(rows)}
	for _, e := range rows {
		list.Entries = append(list.Entries, operatorapi.AuditEntry{
			ID: e.ID, At: e.At, By: e.Actor, Role: operatorapi.Role(e.Role), From: e.Address, Action: e.Action, Target: e.Target, Request: e.Request,
			Result: e.Result, Error: e.Error, RequestID: e.RequestID,
		})
	}
	return list, nil
}
