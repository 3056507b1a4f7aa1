package api

import "context"

type requestKey struct{}

// HeaderRequestID is the header by which an answer names its request, as the platform's log does.
const HeaderRequestID = "X-Request-Id"

// WithRequestID returns a context of a request with that ID.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestKey{}, id)
}

// RequestID returns the ID of a request, or "".
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestKey{}).(string)
	return id
}
