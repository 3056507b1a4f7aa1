package api

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/db"
	"github.com/powernode/powernode-agent/internal/platform/instep"
)

// Node names are DNS labels (RFC 1123), and none looks like an ID, so that a reference is never
// both.
var (
	nodeName = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$`)
	looksID  = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
)

// shownEvents is how many of a node's latest events are shown with it, and listedEvents how many
// of all.
const (
	shownEvents  = 20
	listedEvents = 200
)

func (a *API) info(http.ResponseWriter, *http.Request) (any, error) {
	return operatorapi.Info{
		Version: a.version, PublicURL: a.publicURL.String(), Registry: a.registry, ServerTime: a.now().UTC(),
	}, nil
}

func (a *API) createNode(w http.ResponseWriter, r *http.Request) (any, error) {
	in, err := readStrict[operatorapi.NodeCreate](w, r)
	if err != nil {
		return nil, err
	}
	if err := checkNodeName(in.Name); err != nil {
		return nil, err
	}
	if err := checkArchitecture(in.Architecture, true); err != nil {
		return nil, err
	}
	aims(r, in.Name)
	node, err := a.db.CreateNode(r.Context(), in.Name, in.Architecture)
	if errors.Is(err, db.ErrExists) {
		return nil, refuse(http.StatusConflict, nodeapi.CodeConflict, "there is a node called %s already", in.Name).withHint("choose another name")
	}
	if err != nil {
		return nil, err
	}
	return a.operatorView(node, expectation{}, false), nil
}

func checkNodeName(name string) error {
	if nodeName.MatchString(name) && !looksID.MatchString(name) {
		return nil
	}
	return invalid("node name %.100q: want a DNS label that doesn't look like an ID: lower-case letters, digits and hyphens, at most %d", name, operatorapi.MaxNameLength)
}

// listNodes shows every node, or those in one state.
func (a *API) listNodes(_ http.ResponseWriter, r *http.Request) (any, error) {
	state := operatorapi.NodeState(r.URL.Query().Get(operatorapi.QueryState))
	if state != "" && !slices.Contains(operatorapi.NodeStates(), state) {
		return nil, invalid("%s %.40q: want one of %v", operatorapi.QueryState, state, operatorapi.NodeStates())
	}
	nodes, err := a.db.Nodes(r.Context())
	if err != nil {
		return nil, err
	}
	waiting, err := a.concerns(r.Context(), "")
	if err != nil {
		return nil, err
	}
	explained, err := a.db.Explained(r.Context(), "")
	if err != nil {
		return nil, err
	}
	assigned, err := a.db.AllAssigned(r.Context())
	if err != nil {
		return nil, err
	}
	// Most nodes of a fleet have the same modules: what those amount to is looked up once.
	type kind struct {
		architecture string
		modules      *db.ModuleSet
	}
	known := map[kind]expectation{}
	list := operatorapi.NodeList{Nodes: []operatorapi.Node{}}
	for _, node := range nodes {
		k := kind{node.Architecture, assigned[node.ID]}
		want, has := known[k]
		if !has && k.modules != nil {
			want = a.expected(r.Context(), node.Architecture, k.modules.Modules)
			known[k] = want
		}
		view := a.operatorView(node, want, explained[node.ID])
		if state != "" && view.State != state {
			continue
		}
		waiting.into(&view)
		list.Nodes = append(list.Nodes, view)
	}
	list.Count = len(list.Nodes)
	return list, nil
}

// nodeByRef finds the node that the path names.
func (a *API) nodeByRef(r *http.Request) (db.Node, error) {
	ref := r.PathValue("node")
	node, err := a.db.Node(r.Context(), ref)
	if isNotFound(err) {
		return db.Node{}, refuse(http.StatusNotFound, nodeapi.CodeNotFound, "there is no node %.100q", ref).withHint("see powernode node list")
	}
	return node, err
}

func (a *API) showNode(_ http.ResponseWriter, r *http.Request) (any, error) {
	ctx := r.Context()
	node, err := a.nodeByRef(r)
	if err != nil {
		return nil, err
	}
	modules, err := a.db.Assigned(ctx, node.ID)
	if err != nil {
		return nil, err
	}
	detail := operatorapi.NodeDetail{Assignments: []operatorapi.Module{}, Certificates: []operatorapi.Certificate{}, Conflicts: []operatorapi.Conflict{}}
	explained, err := a.db.Explained(ctx, node.ID)
	if err != nil {
		return nil, err
	}
	want := a.expected(ctx, node.Architecture, modules)
	detail.Node = a.operatorView(node, want, explained[node.ID])
	waiting, err := a.concerns(ctx, node.ID)
	if err != nil {
		return nil, err
	}
	waiting.into(&detail.Node)
	detail.Renewals = renewalViews(waiting.renewals[node.ID])
	for _, m := range modules {
		detail.Assignments = append(detail.Assignments, a.moduleView(m))
	}
	if detail.RemoveMost, err = a.db.RemoveMost(ctx, node.ID); err != nil {
		return nil, err
	}
	certificates, err := a.db.Certificates(ctx, node.ID)
	if err != nil {
		return nil, err
	}
	for _, c := range certificates {
		detail.Certificates = append(detail.Certificates, a.certificateView(c))
	}
	for _, c := range want.root.Conflicts {
		detail.Conflicts = append(detail.Conflicts, operatorapi.Conflict(c))
	}
	if detail.Boots, err = a.boots(r, node.ID); err != nil {
		return nil, err
	}
	detail.Events, err = a.events(ctx, node.ID, shownEvents)
	return detail, err
}

// operatorView puts together what the operator sees of a node. explained says that the root it reports was expected of it at some time.
func (a *API) operatorView(node db.Node, want expectation, explained bool) operatorapi.Node {
	view := operatorapi.Node{
		ID: node.ID, Name: node.Name, Status: operatorapi.NodePending, CreatedAt: node.CreatedAt, Architecture: node.Architecture, Modules: node.Modules,
	}
	view.ExpectedRootError = want.text
	if !want.root.Digest.IsZero() {
		view.ExpectedRootDigest = want.root.Digest.String()
	}
	facts := instep.Facts{Now: a.now(), SilentAfter: a.pace.silence(), Expected: view.ExpectedRootDigest, Unexpected: want.text, Explained: explained}
	if node.Report == nil {
		view.State, view.StateReason = instep.Judge(facts)
		return view
	}
	// A clock that was set back makes no heartbeat younger than now.
	age := max(a.now().Sub(node.Report.ReceivedAt), 0)
	view.Status = operatorapi.NodeRunning
	if age > a.pace.silence() {
		view.Status = operatorapi.NodeStale
	}
	hb := node.Report.Heartbeat
	view.Report = &operatorapi.Report{
		ReceivedAt: node.Report.ReceivedAt, AgeSeconds: int64(age / time.Second), BootID: hb.BootID, AgentVersion: hb.AgentVersion,
		Architecture: hb.Architecture, UptimeSeconds: hb.UptimeSeconds, ModuleDigests: hb.ModuleDigests, MountState: string(hb.MountState),
		LoadAverage: hb.LoadAverage, MemoryFreeKB: hb.MemoryFreeKB, RootDigest: hb.RootDigest, IntegrityLevel: hb.IntegrityLevel, Generation: hb.Generation, Remarks: hb.Remarks,
	}
	facts.Heard, facts.Reported, facts.Mounted = node.Report.ReceivedAt, hb.RootDigest, hb.MountState == nodeapi.MountMounted
	view.State, view.StateReason = instep.Judge(facts)
	view.InStep = view.ExpectedRootDigest != "" && view.ExpectedRootDigest == hb.RootDigest
	return view
}

// expectation is the composition that a node should run, or a text that says why there is none; neither without modules.
type expectation struct {
	root db.Root
	text string
}

// expected returns what modules amount to on an architecture.
// The platform's own trouble with one node's modules is logged, and keeps nobody from the rest.
func (a *API) expected(ctx context.Context, architecture string, modules []db.Module) expectation {
	if len(modules) == 0 {
		return expectation{}
	}
	if architecture == "" {
		return expectation{text: "the node's architecture isn't known before it enrolls"}
	}
	root, err := a.catalog.ExpectedRoot(db.WithoutIntent(ctx), architecture, modules)
	switch {
	case err == nil:
		return expectation{root, root.Refusal}
	case fault.KindOf(err) == fault.Refuse:
		return expectation{text: err.Error()}
	default:
		a.log.Error("no root digest could be computed", "architecture", architecture, "error", err)
		return expectation{text: "the platform couldn't compute it; see its log"}
	}
}

// createToken makes a bootstrap token: 32 random bytes, of which the platform keeps the hash.
func (a *API) createToken(w http.ResponseWriter, r *http.Request) (any, error) {
	node, err := a.nodeByRef(r)
	if err != nil {
		return nil, err
	}
	in, err := readStrict[operatorapi.TokenCreate](w, r)
	if err != nil {
		return nil, err
	}
	ttl := operatorapi.DefaultTokenTTL
	if in.TTLSeconds != 0 {
		if in.TTLSeconds < 1 || in.TTLSeconds > int64(operatorapi.MaxTokenTTL/time.Second) {
			return nil, invalid("ttl_seconds %d: want 1 to %d", in.TTLSeconds, int64(operatorapi.MaxTokenTTL/time.Second))
		}
		ttl = time.Duration(in.TTLSeconds) * time.Second
	}
	token := NewToken()
	expires, err := a.db.CreateToken(r.Context(), node.ID, token, ttl)
	if err != nil {
		return nil, err
	}
	return operatorapi.Token{
		Token: token, NodeID: node.ID, NodeName: node.Name, ExpiresAt: expires, PlatformURL: a.publicURL.String(), CAPEM: string(a.ca.Bundle()),
	}, nil
}

// NewToken returns 256 random bits as 43 characters of URL-safe base64.
func NewToken() string {
	var b [32]byte
	// crypto/rand.Read never fails: it ends the process where the system has no randomness.
	_, _ = rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func (a *API) listEvents(_ http.ResponseWriter, r *http.Request) (any, error) {
	list, err := a.events(r.Context(), "", listedEvents)
	return operatorapi.EventList{Events: list, Count: len(list)}, err
}

func (a *API) events(ctx context.Context, nodeID string, limit int) ([]operatorapi.Event, error) {
	rows, err := a.db.Events(ctx, nodeID, limit)
	if err != nil {
		return nil, err
	}
	list := []operatorapi.Event{}
	for _, e := range rows {
		list = append(list, operatorapi.Event(e))
	}
	return list, nil
}
