package module

import (
	"bytes"
	"errors"
	"io"
	"math"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Bounds of what a manifest may hold, in bytes or items. Only displayMax comes from the schema.
const (
	displayMax  = 200
	textMax     = 64 << 10
	lineMax     = 4096
	specMax     = 4096
	packagesMax = 1024
	listMax     = 256
	servicesMax = 64
)

// ParseManifest reads manifest.yaml, schema version 1: one YAML document of at most ManifestMax
// bytes without anchors, aliases and tags. Unknown and repeated keys are refused, as are values
// that could not be used as what they are meant for; package_spec names, for instance, can't be
// taken for options. The error is a fault.Refuse in area Input that names line and column.
func ParseManifest(b []byte) (*Manifest, error) {
	if len(b) > ManifestMax {
		return nil, fault.New(fault.Refuse, fault.Input, "", "manifest.yaml is %d bytes, at most %d are allowed", len(b), ManifestMax)
	}
	var doc, more yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(b))
	err := decoder.Decode(&doc)
	switch {
	case errors.Is(err, io.EOF):
		return nil, fault.New(fault.Refuse, fault.Input, "begin with schema_version: 1 and name:", "manifest.yaml is empty")
	case err != nil:
		return nil, fault.New(fault.Refuse, fault.Input, "correct the YAML", "parse manifest.yaml: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, fault.New(fault.Refuse, fault.Input, "keep one document", "parse manifest.yaml: something follows its first document")
	}
	p := &parser{}
	p.plain(&doc)
	m := &Manifest{}
	if p.err == nil {
		root := doc.Content[0]
		p.manifest(m, root)
		if p.err == nil && (m.SchemaVersion == 0 || m.Name == "") {
			p.fail(root, "", "add it", "schema_version or name is missing")
		}
	}
	if p.err != nil {
		return nil, fault.New(fault.KindOf(p.err), fault.AreaOf(p.err), fault.HintOf(p.err), "parse manifest.yaml: %w", p.err)
	}
	return m, nil
}

func (p *parser) manifest(m *Manifest, n *yaml.Node) {
	p.object(n, "", map[string]field{
		"schema_version": func(n *yaml.Node, where string) {
			p.integer(&m.SchemaVersion, math.MinInt, math.MaxInt)(n, where)
			if m.SchemaVersion != SchemaVersion {
				p.fail(n, where, "write schema_version: 1, or use a newer release", "version %d is not known here", m.SchemaVersion)
			}
		},
		"name":            p.line(&m.Name, lineMax, CheckName),
		"display_name":    p.line(&m.DisplayName, displayMax),
		"description":     p.text(&m.Description, textMax),
		"license":         p.line(&m.License, displayMax),
		"mask":            p.lines(&m.Mask, specMax, checkGlob),
		"file_spec":       p.lines(&m.FileSpec, specMax, checkGlob),
		"protected_spec":  p.lines(&m.ProtectedSpec, specMax, checkGlob),
		"dependency_spec": p.lines(&m.DependencySpec, specMax, checkGlob),
		"package_spec":    p.lines(&m.PackageSpec, packagesMax, checkPackage),
		"reboot_required": p.boolean(&m.RebootRequired),
		"dependencies": func(n *yaml.Node, where string) {
			p.object(n, where, map[string]field{
				"requires": p.list(listMax, func(n *yaml.Node, where string) {
					m.Dependencies.Requires = append(m.Dependencies.Requires, p.requirement(n, where))
				}),
				"provides": p.lines(&m.Dependencies.Provides, listMax),
			})
		},
		"init": func(n *yaml.Node, where string) {
			p.object(n, where, map[string]field{
				"start":   p.line(&m.Init.Start, lineMax),
				"stop":    p.line(&m.Init.Stop, lineMax),
				"restart": p.line(&m.Init.Restart, lineMax),
			})
		},
		"security": func(n *yaml.Node, where string) { p.security(&m.Security, n, where) },
		"skills": p.list(listMax, func(n *yaml.Node, where string) {
			m.Skills = append(m.Skills, p.value(n, where))
		}),
		"build": func(n *yaml.Node, where string) {
			p.object(n, where, map[string]field{
				"ubuntu_digest": orNull(p.line(&m.Build.UbuntuDigest, lineMax, match(digestForm, "write sha256: and 64 lower-case hexadecimal digits"))),
				"apt_snapshot":  orNull(p.line(&m.Build.APTSnapshot, lineMax, match(snapshotForm, "write it as 20260415T000000Z"))),
				"firmware_repo": p.line(&m.Build.FirmwareRepo, lineMax),
				"firmware_ref":  p.line(&m.Build.FirmwareRef, lineMax),
				"k3s_version":   p.line(&m.Build.K3sVersion, lineMax),
			})
		},
		"services": func(n *yaml.Node, where string) { p.services(m, n, where) },
	})
}

func (p *parser) requirement(n *yaml.Node, where string) Requirement {
	var s string
	p.line(&s, lineMax, match(requirementForm, "write owner/module@constraint, such as powernode/system-base@^1.0"))(n, where)
	ref, constraint, _ := strings.Cut(s, "@")
	owner, name, _ := strings.Cut(ref, "/")
	if p.err == nil {
		if err := CheckName(name); err != nil {
			p.reject(n, where, err)
		}
	}
	return Requirement{Owner: owner, Module: name, Constraint: constraint}
}

// The forms of values. Go's regular expressions take time linear in the text.
var (
	digestForm      = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	snapshotForm    = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z$`)
	requirementForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}/[a-z0-9-]{1,64}(@(\*|[\^~=]?[0-9A-Za-z][0-9A-Za-z.+~^_-]{0,127}))?$`)
	// packageForm is Debian policy 5.6.1 for the name and 5.6.12 for the version. apt would take
	// a name that ends in "-" for an order to remove.
	packageForm = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]{0,98}[a-z0-9+.](=[0-9][A-Za-z0-9.+:~-]{0,127})?$`)
)

func match(form *regexp.Regexp, hint string) func(string) error {
	return func(s string) error {
		if !form.MatchString(s) {
			return fault.New(fault.Refuse, fault.Input, hint, "%.100q has the wrong form", s)
		}
		return nil
	}
}

func checkGlob(s string) error {
	_, err := ParseGlob(s)
	return err
}

// checkPackage reports whether s is "name" or "name=version" of a Debian package.
func checkPackage(s string) error {
	return match(packageForm, "write a Debian package's name, or name=version")(s)
}
