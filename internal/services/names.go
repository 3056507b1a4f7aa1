package services

import "regexp"

// The forms of names that stand in a unit unquoted. They are those of the manifest, checked again: what makes units
// trusts no caller to have parsed one.
var (
	serviceForm  = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	userForm     = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,30}$`)
	variableForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,255}$`)
	// unitForm are the names of units of ours, of which the first group is the module's name.
	unitForm = regexp.MustCompile(`^powernode-([a-z][a-z0-9-]{0,63})(_[a-z0-9][a-z0-9-]{0,62}(\.health|\.ready|\.egress)?\.service|_[a-z0-9][a-z0-9-]{0,62}\.(health|egress)\.timer|\.init\.service)$`)
)

func serviceName(s string) bool  { return serviceForm.MatchString(s) }
func userName(s string) bool     { return userForm.MatchString(s) }
func variableName(s string) bool { return variableForm.MatchString(s) }

// UnitModule returns the module that a unit of that name is of, "" for one that isn't of ours.
func UnitModule(unit string) string {
	found := unitForm.FindStringSubmatch(unit)
	if found == nil {
		return ""
	}
	return found[1]
}
