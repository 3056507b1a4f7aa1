package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/db"
	"github.com/powernode/powernode-agent/internal/platform/registry"
)

type operatorKey struct{}

// operatorOf returns the operator who makes a request of the operator API.
func operatorOf(r *http.Request) db.Operator {
	o, _ := r.Context().Value(operatorKey{}).(db.Operator)
	return o
}

// asOperator lets only operators through whose role is enough, and keeps the audit log.
func (a *API) asOperator(route OperatorRoute) handler {
	return func(w http.ResponseWriter, r *http.Request) (any, error) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			return nil, unauthorized("the operator's token is needed, as bearer token")
		}
		o, known, wait, err := a.operator(r, token)
		switch {
		case err != nil:
			return nil, err
		case wait > 0:
			return nil, tooMany(w, wait)
		case !known:
			return nil, unauthorized("the operator's token is another")
		}
		r = r.WithContext(context.WithValue(r.Context(), operatorKey{}, o))
		data, err := a.audited(w, r, o, route)
		// After the call, which may have been the one that changed it.
		w.Header().Set(operatorapi.HeaderCABundle, a.ca.BundleSHA256())
		return data, err
	}
}

// permit refuses an operator whose role isn't enough.
func permit(o db.Operator, needed operatorapi.Role) error {
	if operatorapi.Role(o.Role).May(needed) {
		return nil
	}
	return refuse(http.StatusForbidden, nodeapi.CodeForbidden, "the operator token %s has the role %s, and this needs %s", o.Name, o.Role, needed).
		withHint("use a token with that role; an admin makes one with powernode token operator create")
}

// RegistryCaller says who makes a request to the registry: an operator by HTTP basic
// authentication or bearer token, a node by its certificate, or nobody (nil). An error of it may be the registry's own, registry.TooMany.
func (a *API) RegistryCaller(r *http.Request) (*registry.Caller, error) {
	if header := r.Header.Get("Authorization"); header != "" {
		token, bearer := strings.CutPrefix(header, "Bearer ")
		if !bearer {
			user, password, ok := r.BasicAuth()
			if !ok || user != operatorapi.RegistryUser {
				return nil, nil
			}
			token = password
		}
		o, known, wait, err := a.operator(r, token)
		switch {
		case wait > 0:
			return nil, registry.TooMany(wait)
		case err != nil || !known:
			return nil, err
		}
		return a.registryOperator(r, o), nil
	}
	node, err := a.node(r)
	if p, ok := asProblem(err); ok && p.status == http.StatusUnauthorized {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &registry.Caller{MayPull: func(ctx context.Context, repository string) (bool, error) {
		return a.db.AssignedRepository(ctx, node.NodeID, repository)
	}}, nil
}

// registryOperator says what an operator may do in the registry.
func (a *API) registryOperator(r *http.Request, o db.Operator) *registry.Caller {
	return &registry.Caller{
		Operator: permit(o, operatorapi.RoleRead) == nil,
		MayPush:  permit(o, operatorapi.RoleDeploy) == nil,
		Changing: func(ctx context.Context, what registry.Change, repository, reference string) context.Context {
			entry := auditEntry(r, o, "registry."+string(what))
			entry.Target, entry.Result = clip(repository+" "+reference, maxAuditText), db.AuditOK
			return db.WithIntent(ctx, &db.Intent{Entry: entry})
		},
	}
}
