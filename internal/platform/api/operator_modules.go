package api

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/catalog"
	"github.com/powernode/powernode-agent/internal/platform/db"
	"github.com/powernode/powernode-agent/internal/platform/registry"
)

// registerTimeout is how long the reading of a module's layers may take.
const registerTimeout = 30 * time.Minute

// defaultPosition is the position of the category that a variety has where none is given. The
// gaps leave room for categories between.
var defaultPosition = map[nodeapi.Variety]int{nodeapi.VarietySubscription: 10, nodeapi.VarietyConfig: 20, nodeapi.VarietyInstance: 30}

// registerModule checks a module that was pushed and makes it known.
func (a *API) registerModule(w http.ResponseWriter, r *http.Request) (any, error) {
	in, err := readStrict[operatorapi.ModuleRegister](w, r)
	if err != nil {
		return nil, err
	}
	registration, err := a.checkRegistration(in)
	if err != nil {
		return nil, err
	}
	aims(r, in.Repository+" "+in.Digest)
	// The answer comes after the layers were read, long past the server's own deadline.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(registerTimeout))
	m, err := a.catalog.Register(r.Context(), registration)
	if errors.Is(err, db.ErrVersionTaken) {
		return nil, refuse(http.StatusConflict, nodeapi.CodeConflict, "register %s@%s: %v", in.Repository, in.Digest, err).
			withHint("raise the module's version: a version names one content for ever")
	}
	if err != nil {
		return nil, err
	}
	a.log.Info("module registered", "module", m.Name, "version", m.Version, "digest", m.Digest)
	return a.moduleView(m), nil
}

func (a *API) checkRegistration(in operatorapi.ModuleRegister) (catalog.Registration, error) {
	repository := strings.TrimPrefix(in.Repository, a.registry+"/")
	out := catalog.Registration{Repository: repository, Digest: in.Digest, Variety: nodeapi.Variety(in.Variety), Priority: in.Priority}
	if !registry.ValidRepository(repository) {
		return out, invalid("repository %.300q: want a path in this platform's registry, with %s/ before it or not", in.Repository, a.registry)
	}
	if !registry.ValidDigest(in.Digest) {
		return out, invalid("digest %.100q: want sha256: and 64 lower-case hexadecimal digits", in.Digest)
	}
	if out.Variety == "" {
		out.Variety = nodeapi.VarietySubscription
	}
	position, known := defaultPosition[out.Variety]
	if !known {
		return out, invalid("variety %.40q: want subscription, config or instance", in.Variety)
	}
	if in.CategoryPosition != nil {
		position = *in.CategoryPosition
	}
	if position < 0 || position > operatorapi.MaxCategoryPosition {
		return out, invalid("category_position %d: want 0 to %d", position, operatorapi.MaxCategoryPosition)
	}
	if in.Priority < 0 || in.Priority > operatorapi.MaxPriority {
		return out, invalid("priority %d: want 0 to %d", in.Priority, operatorapi.MaxPriority)
	}
	out.CategoryPosition = position
	return out, nil
}

func (a *API) listModules(_ http.ResponseWriter, r *http.Request) (any, error) {
	modules, err := a.db.Modules(r.Context())
	if err != nil {
		return nil, err
	}
	list := operatorapi.ModuleList{Modules: []operatorapi.Module{}, Count: len(modules)}
	for _, m := range modules {
		list.Modules = append(list.Modules, a.moduleView(m))
	}
	return list, nil
}

func (a *API) showModule(_ http.ResponseWriter, r *http.Request) (any, error) {
	m, err := a.moduleByRef(r, r.PathValue("module"))
	if err != nil {
		return nil, err
	}
	return a.moduleView(m), nil
}

func (a *API) moduleByRef(r *http.Request, ref string) (db.Module, error) {
	m, err := a.db.Module(r.Context(), ref)
	if isNotFound(err) {
		return db.Module{}, refuse(http.StatusNotFound, nodeapi.CodeNotFound, "there is no module %.100q", ref).
			withHint("publish it first; see powernode module list")
	}
	return m, err
}

func (a *API) moduleView(m db.Module) operatorapi.Module {
	view := operatorapi.Module{
		ID: m.ID, Name: m.Name, Version: m.Version, Variety: m.Variety, CategoryPosition: m.CategoryPosition, Priority: m.Priority,
		EffectivePriority: m.EffectivePriority(), RebootRequired: m.RebootRequired, Repository: a.registry + "/" + m.Repository,
		Digest: m.Digest, RegisteredAt: m.RegisteredAt, AllowDowngrade: m.AllowDowngrade, Images: []operatorapi.Image{},
	}
	for _, image := range m.Images {
		view.Images = append(view.Images, operatorapi.Image{Architecture: image.Architecture, ManifestDigest: image.ManifestDigest, Seal: image.Seal.String()})
	}
	return view
}

func (a *API) listAssignments(_ http.ResponseWriter, r *http.Request) (any, error) {
	node, err := a.nodeByRef(r)
	if err != nil {
		return nil, err
	}
	return a.assignments(r, node)
}

// assignments lists a node's modules with what comes of them.
func (a *API) assignments(r *http.Request, node db.Node) (any, error) {
	modules, err := a.db.Assigned(r.Context(), node.ID)
	if err != nil {
		return nil, err
	}
	list := operatorapi.AssignmentList{Assignments: []operatorapi.Module{}, Count: len(modules)}
	for _, m := range modules {
		list.Assignments = append(list.Assignments, a.moduleView(m))
	}
	if list.RemoveMost, err = a.db.RemoveMost(r.Context(), node.ID); err != nil {
		return nil, err
	}
	want := a.expected(r.Context(), node.Architecture, modules)
	list.ExpectedRootError = want.text
	if !want.root.Digest.IsZero() {
		list.ExpectedRootDigest = want.root.Digest.String()
	}
	return list, nil
}

func (a *API) assign(w http.ResponseWriter, r *http.Request) (any, error) {
	node, err := a.nodeByRef(r)
	if err != nil {
		return nil, err
	}
	in, err := readStrict[operatorapi.AssignmentCreate](w, r)
	if err != nil {
		return nil, err
	}
	m, err := a.moduleByRef(r, in.Module)
	if err != nil {
		return nil, err
	}
	if _, has := m.Image(node.Architecture); node.Architecture != "" && !has {
		return nil, invalid("module %s %s has no image for %s, which is %s's architecture", m.Name, m.Version, node.Architecture, node.Name).
			withHint("publish the module for " + node.Architecture)
	}
	if err := a.db.Assign(r.Context(), node.ID, m, in.AllowDowngrade); err != nil {
		return nil, err
	}
	return a.assignments(r, node)
}

func (a *API) unassign(_ http.ResponseWriter, r *http.Request) (any, error) {
	node, err := a.nodeByRef(r)
	if err != nil {
		return nil, err
	}
	removeMost := false
	switch said := r.URL.Query().Get(operatorapi.RemoveMost); said {
	case "":
	case "true":
		removeMost = true
	default:
		return nil, invalid("%s %.40q: want true, or nothing", operatorapi.RemoveMost, said)
	}
	m, err := a.moduleByRef(r, r.PathValue("module"))
	if err != nil {
		return nil, err
	}
	err = a.db.Unassign(r.Context(), node.ID, m, removeMost)
	if isNotFound(err) {
		return nil, refuse(http.StatusNotFound, nodeapi.CodeNotFound, "module %s isn't assigned to %s", m.Name, node.Name).
			withHint("see powernode node show " + node.Name)
	}
	if err != nil {
		return nil, err
	}
	return a.assignments(r, node)
}
