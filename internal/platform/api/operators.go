package api

import (
	"crypto/sha256"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strconv"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// operatorName is what an operator's token may be called.
var operatorName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// createOperator makes a further operator's token, of which the platform keeps the hash.
func (a *API) createOperator(w http.ResponseWriter, r *http.Request) (any, error) {
	in, err := readStrict[operatorapi.OperatorCreate](w, r)
	if err != nil {
		return nil, err
	}
	switch {
	case !operatorName.MatchString(in.Name):
		return nil, invalid("name %.100q: want lower-case letters, digits, dots, hyphens and underscores, at most %d", in.Name, operatorapi.MaxOperatorName)
	case !slices.Contains(operatorapi.Roles(), in.Role):
		return nil, invalid("role %.40q: want read, deploy or admin", in.Role)
	}
	aims(r, in.Name)
	token := NewToken()
	o, err := a.db.CreateOperator(r.Context(), db.Operator{Name: in.Name, Role: string(in.Role), CreatedBy: operatorOf(r).Name}, sha256.Sum256([]byte(token)))
	switch {
	case errors.Is(err, db.ErrExists):
		return nil, refuse(http.StatusConflict, nodeapi.CodeConflict, "there is an operator token called %s already", in.Name).
			withHint("choose another name, or revoke that one first")
	case errors.Is(err, db.ErrTooMany):
		return nil, refuse(http.StatusConflict, nodeapi.CodeConflict, "there are too many operator tokens").withHint("revoke those that aren't used any more")
	case err != nil:
		return nil, err
	}
	a.log.Info("made an operator token", "name", o.Name, "role", o.Role, "by", o.CreatedBy, "from", host(r))
	return operatorapi.OperatorToken{
		Name: o.Name, Role: in.Role, CreatedAt: o.CreatedAt, URL: a.publicURL.String(), CAPEM: string(a.ca.Bundle()), Token: token,
	}, nil
}

// listOperators shows every operator's token.
func (a *API) listOperators(_ http.ResponseWriter, r *http.Request) (any, error) {
	rows, err := a.db.Operators(r.Context())
	if err != nil {
		return nil, err
	}
	list := operatorapi.OperatorList{Operators: []operatorapi.Operator{}, Count: len(rows)}
	for _, o := range rows {
		list.Operators = append(list.Operators, operatorView(o))
	}
	return list, nil
}

func operatorView(o db.Operator) operatorapi.Operator {
	return operatorapi.Operator{Name: o.Name, Role: operatorapi.Role(o.Role), CreatedAt: o.CreatedAt, CreatedBy: o.CreatedBy}
}

// revokeOperator ends an operator's token, the caller's own too.
func (a *API) revokeOperator(_ http.ResponseWriter, r *http.Request) (any, error) {
	name := r.PathValue("operator")
	if name == operatorapi.FirstOperator {
		return nil, refuse(http.StatusConflict, nodeapi.CodeConflict, "the platform's own operator token can't be revoked: nobody could get in any more").
			withHint("replace it with powernode-platform serve --reset-operator")
	}
	err := a.db.RevokeOperator(r.Context(), name)
	if isNotFound(err) {
		return nil, refuse(http.StatusNotFound, nodeapi.CodeNotFound, "there is no operator token %.100q", name).withHint("see powernode token operator list")
	}
	if err != nil {
		return nil, err
	}
	a.log.Info("revoked an operator token", "name", name, "by", operatorOf(r).Name, "from", host(r))
	return a.listOperators(nil, r)
}

// number reads a number of a query that may be left out.
func number(r *http.Request, name string) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, invalid("%s: want a positive number", name)
	}
	return n, nil
}
