package module

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
)

// NameMax is the longest module name in bytes: that of a DNS label plus one letter, as the
// manifest's schema has it.
const NameMax = 64

// VersionMax is the longest version in bytes: that of an OCI tag.
const VersionMax = 128

// PriorityStep is what one position of a category is worth in an effective priority.
const PriorityStep = 1000

// CheckName reports whether s may name a module: 1 to 64 lower-case letters, digits and hyphens,
// a letter first and no hyphen last. Such a name is safe as a path component, in a unit's name
// and in an OCI repository. The error is a fault.Refuse in area Input.
func CheckName(s string) error {
	bad := s == "" || len(s) > NameMax || s[0] < 'a' || s[0] > 'z' || s[len(s)-1] == '-'
	for _, c := range []byte(s) {
		bad = bad || !isLower(c) && !isDigit(c) && c != '-'
	}
	if bad {
		return fault.New(fault.Refuse, fault.Input,
			"use 1 to 64 lower-case letters, digits and hyphens, a letter first and no hyphen last",
			"module name %.80q is not valid", s)
	}
	return nil
}

// CheckVersion reports whether s may be a module's version: 1 to 128 letters, digits and any of
// . _ + ~ ^ -, a letter or digit first. CompareVersions tells older from newer. The error
// is a fault.Refuse in area Input.
func CheckVersion(s string) error {
	bad := s == "" || len(s) > VersionMax || !isAlphanumeric(s[0])
	for _, c := range []byte(s) {
		bad = bad || !isAlphanumeric(c) && !strings.ContainsRune("._+~^-", rune(c))
	}
	if bad {
		return fault.New(fault.Refuse, fault.Input,
			"use 1 to 128 letters, digits and . _ + ~ ^ -, a letter or digit first",
			"module version %.150q is not valid", s)
	}
	return nil
}

// VersionTag returns the OCI tag under which a version is published: the version with each of
// + ~ ^, which a tag may not hold, replaced by "_". The version must have passed CheckVersion.
// Two versions may share a tag; the signed annotation tells them apart.
func VersionTag(version string) string {
	return strings.NewReplacer("+", "_", "~", "_", "^", "_").Replace(version)
}

// EffectivePriority returns the priority of a module in its category: higher wins.
func EffectivePriority(categoryPosition, priority int) int {
	return categoryPosition*PriorityStep + priority
}

// Rank is a module's place in a composition.
type Rank struct {
	EffectivePriority int
	Name              string
}

// Compare returns a negative number if r wins over other, a positive one if other wins, and 0 if
// they are equal: the higher priority wins, and among equals the smaller name in byte order.
// Sorting by it puts the winner first.
func (r Rank) Compare(other Rank) int {
	return cmp.Or(cmp.Compare(other.EffectivePriority, r.EffectivePriority), cmp.Compare(r.Name, other.Name))
}

// String returns the name with the priority, for reports.
func (r Rank) String() string { return fmt.Sprintf("%s (priority %d)", r.Name, r.EffectivePriority) }

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isAlphanumeric(c byte) bool { return isLower(c) || isDigit(c) || 'A' <= c && c <= 'Z' }
