package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeconfig"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// showConfig shows what is set of a node.
func (a *API) showConfig(_ http.ResponseWriter, r *http.Request) (any, error) {
	node, err := a.nodeByRef(r)
	if err != nil {
		return nil, err
	}
	c, err := a.configOf(r.Context(), node.ID)
	return configView(node, c), err
}

// changeConfig changes that: all of what is asked for, or nothing.
func (a *API) changeConfig(w http.ResponseWriter, r *http.Request) (any, error) {
	node, err := a.nodeByRef(r)
	if err != nil {
		return nil, err
	}
	data, err := readBody(w, r, operatorapi.MaxConfigChange)
	if err != nil {
		return nil, err
	}
	var in operatorapi.NodeConfigChange
	if err := durable.DecodeJSON(data, &in); err != nil {
		return nil, refuse(http.StatusBadRequest, nodeapi.CodeValidation, "the request's body isn't the JSON that is wanted: %v", err)
	}
	c, err := a.db.ChangeConfig(r.Context(), node.ID, func(was nodeapi.NodeConfig) (nodeapi.NodeConfig, string, error) {
		wanted, err := changed(was, in)
		if err != nil {
			return was, "", err
		}
		now, err := nodeconfig.Check(wanted)
		if err != nil {
			return was, "", invalid("%v", err)
		}
		return now, difference(was, now), nil
	})
	if err == nil && c.Digest == "" {
		c.NodeConfig, err = noConfig()
	}
	if err != nil {
		return nil, err
	}
	a.log.Info("configured", "node", node.ID, "config", c.Digest)
	return configView(node, c), nil
}

// changed returns a configuration as it is to be, which is yet to be checked.
func changed(was nodeapi.NodeConfig, in operatorapi.NodeConfigChange) (nodeapi.NodeConfig, error) {
	now := nodeapi.NodeConfig{Hostname: was.Hostname, Hosts: was.Hosts, Users: slices.Clone(was.Users)}
	if in.Hostname != nil {
		now.Hostname = *in.Hostname
	}
	if in.Hosts != nil {
		now.Hosts = []nodeapi.HostEntry{}
		for _, h := range *in.Hosts {
			now.Hosts = append(now.Hosts, nodeapi.HostEntry(h))
		}
	}
	named := make(map[string]bool)
	for _, u := range in.Users {
		if named[u.Name] {
			return now, invalid("user %.60q is there twice", u.Name)
		}
		named[u.Name] = true
	}
	for _, name := range in.ForgetUsers {
		if named[name] {
			return now, invalid("user %.60q is there twice", name)
		}
		named[name] = true
		if !slices.ContainsFunc(was.Users, func(u nodeapi.UserKeys) bool { return u.Name == name }) {
			return now, invalid("nothing is set of user %.60q", name)
		}
	}
	now.Users = slices.DeleteFunc(now.Users, func(u nodeapi.UserKeys) bool { return named[u.Name] })
	for _, u := range in.Users {
		now.Users = append(now.Users, nodeapi.UserKeys(u))
	}
	slices.SortFunc(now.Users, func(a, b nodeapi.UserKeys) int { return strings.Compare(a.Name, b.Name) })
	return now, nil
}

// difference says in a sentence, for the events, how a configuration changes; both have been checked. It is ""
// where they are the same.
func difference(was, now nodeapi.NodeConfig) string {
	var said []string
	if was.Hostname != now.Hostname {
		said = append(said, fmt.Sprintf("host name %s instead of %s", orNone(now.Hostname), orNone(was.Hostname)))
	}
	line := func(h nodeapi.HostEntry) string { return h.Address + " " + strings.Join(h.Names, " ") }
	switch list := edits(lines(was.Hosts, line), lines(now.Hosts, line), func(s string) string { return s }); {
	case list != "":
		said = append(said, "hosts: "+list)
	case was.Hosts == nil && now.Hosts != nil:
		said = append(said, "hosts: none")
	case !slices.EqualFunc(was.Hosts, now.Hosts, func(a, b nodeapi.HostEntry) bool { return line(a) == line(b) }):
		said = append(said, "hosts: in another order")
	}
	for _, u := range now.Users {
		before, there := keysOf(was, u.Name)
		switch list := edits(before, u.AuthorizedKeys, fingerprint); {
		case list != "":
			said = append(said, "authorized keys of "+u.Name+": "+list)
		case !there:
			said = append(said, "authorized keys of "+u.Name+": none")
		case !slices.Equal(before, u.AuthorizedKeys):
			said = append(said, "authorized keys of "+u.Name+": in another order")
		}
	}
	for _, u := range was.Users {
		if !slices.ContainsFunc(now.Users, func(n nodeapi.UserKeys) bool { return n.Name == u.Name }) {
			said = append(said, "authorized keys of "+u.Name+": nothing is said any more, and nodes keep what they have")
		}
	}
	text := strings.Join(said, "; ")
	if len(text) > saidBytes {
		text = strings.ToValidUTF8(text[:saidBytes], "") + "…"
	}
	return text
}

// saidBytes is how long an event gets: a change may be of many users.
const saidBytes = 4000

// saidEdits is how many of a list an event names.
const saidEdits = 8

// edits says what was added to a list and removed from it.
func edits(was, now []string, show func(string) string) string {
	var list []string
	for _, s := range now {
		if !slices.Contains(was, s) {
			list = append(list, "+"+show(s))
		}
	}
	for _, s := range was {
		if !slices.Contains(now, s) {
			list = append(list, "-"+show(s))
		}
	}
	if n := len(list); n > saidEdits {
		list = append(list[:saidEdits], fmt.Sprintf("and %d more", n-saidEdits))
	}
	return strings.Join(list, ", ")
}

// fingerprint names a key in an event: its fingerprint and its comment, and whether it has options.
func fingerprint(line string) string {
	k, err := nodeconfig.ParseKey(line)
	if err != nil {
		return line
	}
	text := k.Fingerprint()
	if k.Comment != "" {
		text += fmt.Sprintf(" (%.60s)", k.Comment)
	}
	if k.Options != "" {
		text += " with options"
	}
	return text
}

func keysOf(c nodeapi.NodeConfig, name string) (keys []string, there bool) {
	for _, u := range c.Users {
		if u.Name == name {
			return u.AuthorizedKeys, true
		}
	}
	return nil, false
}

func lines[T any](list []T, line func(T) string) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = line(v)
	}
	return out
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func configView(node db.Node, c db.NodeConfig) operatorapi.NodeConfig {
	view := operatorapi.NodeConfig{NodeID: node.ID, NodeName: node.Name, Digest: c.Digest, ChangedAt: c.ChangedAt, Hostname: c.Hostname, Users: []operatorapi.UserKeys{}}
	if c.Hosts != nil {
		view.Hosts = []operatorapi.HostEntry{}
	}
	for _, h := range c.Hosts {
		view.Hosts = append(view.Hosts, operatorapi.HostEntry(h))
	}
	for _, u := range c.Users {
		view.Users = append(view.Users, operatorapi.UserKeys(u))
	}
	return view
}
