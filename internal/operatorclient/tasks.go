package operatorclient

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/powernode/powernode-agent/internal/operatorapi"
)

// Listing says what a list is to hold.
type Listing struct {
	// Node is the ID or the name of the one node that is meant; "" is all.
	Node string
	// Open leaves out tasks that have ended.
	Open bool
	// Limit is how many are wanted at most; 0 is as many as the platform likes.
	Limit int
}

func (l Listing) query() string {
	values := url.Values{}
	if l.Node != "" {
		values.Set(operatorapi.QueryNode, l.Node)
	}
	if l.Open {
		values.Set(operatorapi.QueryOpen, "true")
	}
	if l.Limit != 0 {
		values.Set(operatorapi.QueryLimit, strconv.Itoa(l.Limit))
	}
	if len(values) == 0 {
		return ""
	}
	return "?" + values.Encode()
}

// CreateTask asks a node for something. With an ID of the caller's own, asking again makes no second task.
func (c *Client) CreateTask(ctx context.Context, node string, in operatorapi.TaskCreate) (operatorapi.Task, error) {
	return call[operatorapi.Task](ctx, c, http.MethodPost, fill(operatorapi.PathNodeTasks, node, ""), in)
}

// Tasks lists tasks, the newest first.
func (c *Client) Tasks(ctx context.Context, which Listing) (operatorapi.TaskList, error) {
	return call[operatorapi.TaskList](ctx, c, http.MethodGet, operatorapi.PathTasks+which.query(), nil)
}

// Task shows one task with all that its node said of it.
func (c *Client) Task(ctx context.Context, id string) (operatorapi.TaskDetail, error) {
	return call[operatorapi.TaskDetail](ctx, c, http.MethodGet, withTask(operatorapi.PathTask, id), nil)
}

// CancelTask asks for the end of a task; it is no error that it has ended already.
func (c *Client) CancelTask(ctx context.Context, id string) (operatorapi.Task, error) {
	return call[operatorapi.Task](ctx, c, http.MethodPost, withTask(operatorapi.PathTaskCancel, id), struct{}{})
}

// NodeEvents lists what nodes told of themselves, the newest first.
func (c *Client) NodeEvents(ctx context.Context, which Listing) (operatorapi.NodeEventList, error) {
	return call[operatorapi.NodeEventList](ctx, c, http.MethodGet, operatorapi.PathNodeEvents+which.query(), nil)
}

// withTask puts a task's ID into a path, as exactly one segment.
func withTask(path, id string) string {
	return strings.ReplaceAll(path, "{task}", url.PathEscape(id))
}
