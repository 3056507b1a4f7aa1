package modulebuild

import (
	"fmt"
	"strings"
)

// accounts are the files that hold all users and groups of a system.
var accounts = []string{"etc/passwd", "etc/group", "etc/shadow", "etc/gshadow"}

// sysusers returns the lines of a sysusers.d(5) file for the users and groups that after has and
// before hasn't: "u name uid:gid ..." for a user, "g name gid" for a group without a user of its
// name, and "m user group" for members of groups. The inputs are passwd and group files.
func sysusers(passwdBefore, groupBefore, passwdAfter, groupAfter string) []string {
	oldUsers, oldGroups := byName(passwdBefore), byName(groupBefore)
	newGroups := byName(groupAfter)
	var lines []string
	users := make(map[string]bool)
	for _, u := range records(passwdAfter, 7) {
		if _, ok := oldUsers[u[0]]; ok {
			continue
		}
		users[u[0]] = true
		gecos, home, shell := quoteField(u[4]), quoteField(u[5]), quoteField(u[6])
		lines = append(lines, fmt.Sprintf("u %s %s:%s %s %s %s", u[0], u[2], u[3], gecos, home, shell))
	}
	var groups, members []string
	for _, g := range records(groupAfter, 4) {
		old, had := oldGroups[g[0]]
		if !had {
			// A "u" line with a group number wants that group to exist.
			groups = append(groups, fmt.Sprintf("g %s %s", g[0], g[2]))
		}
		before := make(map[string]bool)
		if had {
			for m := range strings.SplitSeq(old[3], ",") {
				before[m] = true
			}
		}
		for m := range strings.SplitSeq(newGroups[g[0]][3], ",") {
			if m != "" && !before[m] {
				members = append(members, fmt.Sprintf("m %s %s", m, g[0]))
			}
		}
	}
	return append(append(groups, lines...), members...)
}

// records splits a file of lines with fields between colons; lines with another number of fields
// are passed over.
func records(text string, fields int) [][]string {
	var all [][]string
	for line := range strings.SplitSeq(text, "\n") {
		if r := strings.Split(line, ":"); len(r) == fields && r[0] != "" {
			all = append(all, r)
		}
	}
	return all
}

func byName(text string) map[string][]string {
	m := make(map[string][]string)
	for _, fields := range []int{7, 4} {
		for _, r := range records(text, fields) {
			m[r[0]] = r
		}
	}
	return m
}

// quoteField writes a field of sysusers.d: "-" where empty, in double quotes.
func quoteField(s string) string {
	if s == "" {
		return "-"
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%").Replace(s) + `"`
}
