package nodeclient

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// maxModules bounds a node's list; a root of more has never been seen.
const maxModules = 2000

// decodeList reads the answer to GET modules. A list that is missing, or shorter than it says, is an
// error: taken for what it isn't, it would end everything that runs.
func decodeList(raw []byte) (*nodeapi.ModuleList, error) {
	var shape struct {
		Modules    *[]nodeapi.Module `json:"modules"`
		Count      *int              `json:"count"`
		RootDigest string            `json:"root_digest"`
		RemoveMost bool              `json:"remove_most"`
	}
	if err := json.Unmarshal(raw, &shape); err != nil {
		return nil, notAsAgreed(err)
	}
	if shape.Modules == nil {
		return nil, errors.New("the answer holds no list of modules")
	}
	list := nodeapi.ModuleList{Modules: *shape.Modules, Count: len(*shape.Modules), RootDigest: shape.RootDigest, RemoveMost: shape.RemoveMost}
	switch {
	case shape.Count != nil && *shape.Count != list.Count:
		return nil, fmt.Errorf("the answer says %d modules and holds %d", *shape.Count, list.Count)
	case list.Count > maxModules:
		return nil, fmt.Errorf("the answer holds %d modules, more than %d", list.Count, maxModules)
	case list.RootDigest != "" && !hex64.MatchString(list.RootDigest):
		return nil, fmt.Errorf("%.80q isn't a root digest", list.RootDigest)
	}
	seen := make(map[string]bool, list.Count)
	for i, m := range list.Modules {
		if err := checkID(m.ID); err != nil {
			return nil, fmt.Errorf("module %d of %d: %w", i+1, list.Count, err)
		}
		if seen[m.ID] {
			return nil, fmt.Errorf("module %s is listed twice", m.ID)
		}
		seen[m.ID] = true
	}
	return &list, nil
}

// decodeDetail reads the answer to GET modules/:id, whose module stands under "module" or, on some
// platforms, is the data itself.
func decodeDetail(raw []byte, id string) (*nodeapi.ModuleDetail, error) {
	var nested struct {
		Module json.RawMessage `json:"module"`
	}
	if err := json.Unmarshal(raw, &nested); err != nil {
		return nil, notAsAgreed(err)
	}
	if len(nested.Module) > 0 && nested.Module[0] == '{' {
		raw = nested.Module
	}
	var detail nodeapi.ModuleDetail
	if err := json.Unmarshal(raw, &detail.Module); err != nil {
		return nil, notAsAgreed(err)
	}
	if detail.Module.ID != id {
		return nil, fmt.Errorf("the answer is about module %.80q", detail.Module.ID)
	}
	return &detail, nil
}

// notAsAgreed keeps of a decoder's error what no peer can choose the words of.
func notAsAgreed(err error) error {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && len(e.Field) <= 80 {
		return fmt.Errorf("the answer isn't as agreed: %s is a JSON %.20s", e.Field, e.Value)
	}
	return errors.New("the answer isn't as agreed")
}

var (
	idForm         = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	hex64          = regexp.MustCompile(`^[0-9a-f]{64}$`)
	digestForm     = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	repositoryForm = regexp.MustCompile(`^[A-Za-z0-9.:\[\]_-]{1,255}(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$`)
)

// checkID accepts UUIDs and anything else that is safe as a file name and in a URL.
func checkID(id string) error {
	if !idForm.MatchString(id) {
		return fmt.Errorf("%.80q isn't a module ID", id)
	}
	return nil
}

// CheckModule says what is wrong with a module of the list, or returns nil: its ID, its name, its
// version, the repository and the digest that it is pulled by, and its rank.
func CheckModule(m nodeapi.Module) error {
	if err := checkModule(m); err != nil {
		return fault.New(fault.Refuse, fault.Platform, "correct the module or its assignment on the platform", "module %.80q of the platform's list: %w", m.ID, err)
	}
	return nil
}

func checkModule(m nodeapi.Module) error {
	if err := checkID(m.ID); err != nil {
		return err
	}
	if err := module.CheckName(m.Name); err != nil {
		return err
	}
	// The signature is checked to be that of this version: without one, no signature would do.
	if err := module.CheckVersion(m.Version); err != nil {
		return err
	}
	switch {
	case len(m.Repository) > 512 || !repositoryForm.MatchString(m.Repository):
		return fmt.Errorf("%.120q isn't an OCI repository", m.Repository)
	case !digestForm.MatchString(m.Digest):
		return fmt.Errorf("%.80q isn't the digest of an OCI manifest", m.Digest)
	case m.EffectivePriority < 0 || m.EffectivePriority > 1<<30:
		return fmt.Errorf("%d isn't an effective priority", m.EffectivePriority)
	}
	return nil
}
