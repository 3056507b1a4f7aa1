package operatorclient

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/powernode/powernode-agent/internal/operatorapi"
)

// CreateOperator makes an operator's token. The token is in the answer and nowhere else.
func (c *Client) CreateOperator(ctx context.Context, in operatorapi.OperatorCreate) (operatorapi.OperatorToken, error) {
	return call[operatorapi.OperatorToken](ctx, c, http.MethodPost, operatorapi.PathOperators, in)
}

// Operators lists the operators' tokens.
func (c *Client) Operators(ctx context.Context) (operatorapi.OperatorList, error) {
	return call[operatorapi.OperatorList](ctx, c, http.MethodGet, operatorapi.PathOperators, nil)
}

// RevokeOperator ends an operator's token, and lists those that remain.
func (c *Client) RevokeOperator(ctx context.Context, name string) (operatorapi.OperatorList, error) {
	path := strings.ReplaceAll(operatorapi.PathOperator, "{operator}", url.PathEscape(name))
	return call[operatorapi.OperatorList](ctx, c, http.MethodDelete, path, nil)
}

// AuditQuery says which entries of the audit log are wanted.
type AuditQuery struct {
	// By is the name of the token whose entries are wanted; "" is everybody's.
	By string
	// Before is the ID before which to go on; 0 begins with the latest.
	Before int64
	// Limit is how many are wanted at most; 0 is as many as the platform likes.
	Limit int
}

// Audit lists what operators changed, the newest first.
func (c *Client) Audit(ctx context.Context, q AuditQuery) (operatorapi.AuditList, error) {
	values := url.Values{}
	if q.By != "" {
		values.Set(operatorapi.QueryBy, q.By)
	}
	if q.Before != 0 {
		values.Set(operatorapi.QueryBefore, strconv.FormatInt(q.Before, 10))
	}
	if q.Limit != 0 {
		values.Set(operatorapi.QueryLimit, strconv.Itoa(q.Limit))
	}
	path := operatorapi.PathAudit
	if len(values) > 0 {
		path += "?" + values.Encode()
	}
	return call[operatorapi.AuditList](ctx, c, http.MethodGet, path, nil)
}
