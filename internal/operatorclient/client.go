package operatorclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
)

// maxResponse bounds, in bytes, every JSON answer that the client reads: some ten thousand nodes.
const maxResponse = 16 << 20

// registerTimeout bounds ModuleRegister: the platform reads every layer before it answers.
const registerTimeout = 30 * time.Minute

// callTimeout bounds every other call.
const callTimeout = time.Minute

// Client speaks the operator API. It may be used by several goroutines at once.
type Client struct {
	cfg  Config
	base *url.URL
	http *http.Client
	// learned is what FollowCA set; following is true once it was called, or is about to be.
	learned   func(caPEM string, err error)
	following atomic.Bool
}

// NewClient returns a client for the platform of cfg. It makes no connection yet.
func NewClient(cfg Config) (*Client, error) {
	base, err := cfg.baseURL()
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "", "%w", err)
	}
	tlsConfig, err := cfg.TLS()
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "", "%w", err)
	}
	return &Client{cfg: cfg, base: base, http: &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:     tlsConfig,
			ForceAttemptHTTP2:   true,
			DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSHandshakeTimeout: 10 * time.Second,
			MaxIdleConns:        4,
			IdleConnTimeout:     time.Minute,
		},
		// A redirect would carry the token to wherever it points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Config returns the credentials that the client was made with.
func (c *Client) Config() Config { return c.cfg }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Info asks whom the client is talking to.
func (c *Client) Info(ctx context.Context) (operatorapi.Info, error) {
	return call[operatorapi.Info](ctx, c, http.MethodGet, operatorapi.PathInfo, nil)
}

// CreateNode makes a node.
func (c *Client) CreateNode(ctx context.Context, in operatorapi.NodeCreate) (operatorapi.Node, error) {
	return call[operatorapi.Node](ctx, c, http.MethodPost, operatorapi.PathNodes, in)
}

// Nodes lists every node.
func (c *Client) Nodes(ctx context.Context) (operatorapi.NodeList, error) {
	return call[operatorapi.NodeList](ctx, c, http.MethodGet, operatorapi.PathNodes, nil)
}

// NodesIn lists every node in a state; "" is every state.
func (c *Client) NodesIn(ctx context.Context, state operatorapi.NodeState) (operatorapi.NodeList, error) {
	path := operatorapi.PathNodes
	if state != "" {
		path += "?" + url.Values{operatorapi.QueryState: {string(state)}}.Encode()
	}
	return call[operatorapi.NodeList](ctx, c, http.MethodGet, path, nil)
}

// Node shows the node of that ID or name.
func (c *Client) Node(ctx context.Context, node string) (operatorapi.NodeDetail, error) {
	return call[operatorapi.NodeDetail](ctx, c, http.MethodGet, fill(operatorapi.PathNode, node, ""), nil)
}

// CreateToken makes a bootstrap token for a node. The token is in the answer and nowhere else.
func (c *Client) CreateToken(ctx context.Context, node string, in operatorapi.TokenCreate) (operatorapi.Token, error) {
	return call[operatorapi.Token](ctx, c, http.MethodPost, fill(operatorapi.PathTokens, node, ""), in)
}

// Assignments lists the modules assigned to a node.
func (c *Client) Assignments(ctx context.Context, node string) (operatorapi.AssignmentList, error) {
	return call[operatorapi.AssignmentList](ctx, c, http.MethodGet, fill(operatorapi.PathAssignments, node, ""), nil)
}

// Assign assigns a module to a node; doing it again changes nothing.
func (c *Client) Assign(ctx context.Context, node string, in operatorapi.AssignmentCreate) (operatorapi.AssignmentList, error) {
	return call[operatorapi.AssignmentList](ctx, c, http.MethodPost, fill(operatorapi.PathAssignments, node, ""), in)
}

// Unassign takes a module from a node.
func (c *Client) Unassign(ctx context.Context, node, module string) (operatorapi.AssignmentList, error) {
	return call[operatorapi.AssignmentList](ctx, c, http.MethodDelete, fill(operatorapi.PathAssignment, node, module), nil)
}

// UnassignMost is Unassign with the word that the node may lose more than half of its modules at once, as operatorapi.RemoveMost says.
func (c *Client) UnassignMost(ctx context.Context, node, module string) (operatorapi.AssignmentList, error) {
	return call[operatorapi.AssignmentList](ctx, c, http.MethodDelete, fill(operatorapi.PathAssignment, node, module)+"?"+operatorapi.RemoveMost+"=true", nil)
}

// RegisterModule tells the platform of a module that was pushed to its registry. The platform
// reads the layers and checks the seal before it answers, so this may take minutes.
func (c *Client) RegisterModule(ctx context.Context, in operatorapi.ModuleRegister) (operatorapi.Module, error) {
	return call[operatorapi.Module](ctx, c, http.MethodPost, operatorapi.PathModules, in)
}

// Modules lists every module.
func (c *Client) Modules(ctx context.Context) (operatorapi.ModuleList, error) {
	return call[operatorapi.ModuleList](ctx, c, http.MethodGet, operatorapi.PathModules, nil)
}

// Module shows the module of that ID or name.
func (c *Client) Module(ctx context.Context, module string) (operatorapi.Module, error) {
	return call[operatorapi.Module](ctx, c, http.MethodGet, fill(operatorapi.PathModule, "", module), nil)
}

// Events lists the latest events, newest first.
func (c *Client) Events(ctx context.Context) (operatorapi.EventList, error) {
	return call[operatorapi.EventList](ctx, c, http.MethodGet, operatorapi.PathEvents, nil)
}

// fill puts a node and a module into a path; each becomes exactly one segment.
func fill(path, node, module string) string {
	return strings.NewReplacer("{node}", url.PathEscape(node), "{module}", url.PathEscape(module)).Replace(path)
}

// call makes one request and decodes the answer's data.
func call[T any](ctx context.Context, c *Client, method, path string, in any) (T, error) {
	var out T
	timeout := callTimeout
	if method == http.MethodPost && path == operatorapi.PathModules {
		timeout = registerTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return out, fmt.Errorf("%s %s: %w", method, path, err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base.String()+path, body)
	if err != nil {
		return out, fault.New(fault.Refuse, fault.Input, "", "%s %s: %w", method, path, err)
	}
	req.Header.Set("Authorization", "Bearer "+c.cfg.Token.Reveal())
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return out, c.unreachable(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse+1))
	if err != nil {
		return out, c.unreachable(err)
	}
	if len(data) > maxResponse {
		return out, fault.New(fault.Broken, fault.Platform, "", "the platform's answer to %s %s is longer than %d bytes", method, path, maxResponse)
	}
	var env nodeapi.Envelope
	if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || kind != "application/json" || json.Unmarshal(data, &env) != nil {
		return out, fault.New(fault.Refuse, fault.Platform, "check the url in the credential file",
			"what answers at %s with status %d is not a powernode platform", c.base, resp.StatusCode)
	}
	if !env.Success || resp.StatusCode >= 300 {
		return out, c.refused(resp.StatusCode, env)
	}
	if err := json.Unmarshal(env.Data, &out); err != nil {
		return out, fault.New(fault.Broken, fault.Platform, "use the same version of powernode and powernode-platform",
			"read the platform's answer to %s %s: %w", method, path, err)
	}
	c.follow(ctx, resp.Header.Get(operatorapi.HeaderCABundle), resp.TLS)
	return out, nil
}

// refused turns an error envelope into an error.
func (c *Client) refused(status int, env nodeapi.Envelope) error {
	var details operatorapi.Details
	if len(env.Details) > 0 {
		// Details of another shape are no hint; the error itself is in env.Error.
		_ = json.Unmarshal(env.Details, &details)
	}
	text := env.Error
	if text == "" {
		text = http.StatusText(status)
	}
	switch {
	case status == http.StatusUnauthorized:
		return fault.New(fault.Refuse, fault.Platform, "copy operator.json from the platform's data directory again",
			"the platform at %s refuses the operator token", c.base)
	case env.Code == operatorapi.CodeSealRefused:
		return fault.New(fault.Refuse, fault.Verify, details.Hint, "%s", text)
	case status == http.StatusTooManyRequests:
		return fault.New(fault.Retry, fault.Platform, details.Hint, "the platform at %s takes no more calls for now: %s", c.base, text)
	case status >= http.StatusInternalServerError:
		if details.Hint == "" {
			details.Hint = "see the platform's log"
			if details.RequestID != "" {
				details.Hint += " for request " + details.RequestID
			}
		}
		return fault.New(fault.Retry, fault.Platform, details.Hint, "the platform at %s failed: %s", c.base, text)
	default:
		return fault.New(fault.Refuse, fault.Input, details.Hint, "%s", text)
	}
}

// unreachable turns an error of the transport into one that says which of the two sides to look at.
func (c *Client) unreachable(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	// url.Error would repeat method and URL.
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return unreachable(c.base.String(), err)
}
