package operatorcli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeconfig"
	"github.com/powernode/powernode-agent/internal/operatorapi"
)

func nodeConfigCommand(app *cli.App, conn *connection) *cobra.Command {
	return group("config", "Set what a node has beside its modules: host name, hosts, authorized keys",
		nodeConfigShowCommand(app, conn), nodeConfigSetCommand(app, conn))
}

func nodeConfigShowCommand(app *cli.App, conn *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "show NODE",
		Short: "Show what is set of a node beside its modules",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := conn.client()
			if err != nil {
				return err
			}
			defer client.Close()
			config, err := client.NodeConfig(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return app.Print(config, func(w io.Writer) error { return showNodeConfig(w, config) })
		},
	}
}

// nodeConfigFlags are the flags of node config set.
type nodeConfigFlags struct {
	hostname, hosts       string
	noHostname, noHosts   bool
	keys, noKeys, forget  []string
	readFile              func(path string) ([]byte, error)
	hostnameSet, hostsSet bool
}

func nodeConfigSetCommand(app *cli.App, conn *connection) *cobra.Command {
	var f nodeConfigFlags
	cmd := &cobra.Command{
		Use:   "set NODE",
		Short: "Change what is set of a node beside its modules",
		Long: `Change what is set of a node beside its modules. What isn't named stays as it is set; the node takes it up with
its next powernode-agent sync.

Keys are public keys, as in an authorized_keys file, options and comments included. On the node they stand in a
block of their own in the user's ~/.ssh/authorized_keys; keys that are there besides stay. A user of whom an empty list
is given is refused: --no-keys says that none are meant. --forget-keys says no more about a user, and takes nothing
from the node.`,
		Example: `  powernode node config set web-1 --hostname web-1.example.org --keys root=admins.pub
  powernode node config set web-1 --hosts internal.hosts --no-keys deploy`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.hostnameSet, f.hostsSet = cmd.Flags().Changed("hostname"), cmd.Flags().Changed("hosts")
			f.readFile = func(path string) ([]byte, error) { return readInput(app, path) }
			change, err := f.change()
			if err != nil {
				return err
			}
			client, err := conn.client()
			if err != nil {
				return err
			}
			defer client.Close()
			config, err := client.ChangeNodeConfig(cmd.Context(), args[0], change)
			if err != nil {
				return err
			}
			return app.Print(config, func(w io.Writer) error { return showNodeConfig(w, config) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.hostname, "hostname", "", "the node's host name, with or without a domain")
	flags.BoolVar(&f.noHostname, "no-hostname", false, "leave the node the host name that it has")
	flags.StringVar(&f.hosts, "hosts", "", "a `FILE` with all entries of /etc/hosts that the node gets; - is the standard input")
	flags.BoolVar(&f.noHosts, "no-hosts", false, "take those entries from the node")
	flags.StringArrayVar(&f.keys, "keys", nil, "`USER=FILE`: all keys that the user gets; may be repeated")
	flags.StringArrayVar(&f.noKeys, "no-keys", nil, "a `USER` from whom all of the platform's keys are taken; may be repeated")
	flags.StringArrayVar(&f.forget, "forget-keys", nil, "a `USER` of whom nothing is said any more; may be repeated")
	cmd.MarkFlagsMutuallyExclusive("hostname", "no-hostname")
	cmd.MarkFlagsMutuallyExclusive("hosts", "no-hosts")
	cmd.MarkFlagsOneRequired("hostname", "no-hostname", "hosts", "no-hosts", "keys", "no-keys", "forget-keys")
	return cmd
}

// change reads the files, and judges what is in them before the platform does: so that the error names the file.
func (f *nodeConfigFlags) change() (operatorapi.NodeConfigChange, error) {
	var c operatorapi.NodeConfigChange
	wrong := func(what string, err error) error {
		return fault.New(fault.Refuse, fault.Input, "correct it", "%s: %w", what, err)
	}
	switch {
	case f.noHostname:
		c.Hostname = new(string)
	case f.hostnameSet:
		name, err := nodeconfig.CheckHostname(f.hostname)
		if err != nil {
			return c, wrong("--hostname", err)
		}
		c.Hostname = &name
	}
	switch {
	case f.noHosts:
		c.Hosts = &[]operatorapi.HostEntry{}
	case f.hostsSet:
		entries := []operatorapi.HostEntry{}
		data, err := f.readFile(f.hosts)
		if err != nil {
			return c, err
		}
		list := nodeconfig.ParseHostsFile(string(data))
		if _, err := nodeconfig.ParseHosts(list); err != nil {
			return c, wrong(f.hosts, err)
		}
		if len(list) == 0 {
			return c, fault.New(fault.Refuse, fault.Input, "use --no-hosts if that is meant", "%s holds no entries", f.hosts)
		}
		for _, h := range list {
			entries = append(entries, operatorapi.HostEntry(h))
		}
		c.Hosts = &entries
	}
	for _, word := range f.keys {
		user, path, ok := strings.Cut(word, "=")
		if !ok || path == "" {
			return c, fault.New(fault.Refuse, fault.Input, "use USER=FILE", "--keys %q", word)
		}
		data, err := f.readFile(path)
		if err != nil {
			return c, err
		}
		u := operatorapi.UserKeys{Name: user, AuthorizedKeys: nodeconfig.KeyLines(string(data))}
		if _, err := nodeconfig.ParseKeys(u.AuthorizedKeys); err != nil {
			return c, wrong(path, err)
		}
		c.Users = append(c.Users, u)
	}
	for _, user := range f.noKeys {
		c.Users = append(c.Users, operatorapi.UserKeys{Name: user, AuthorizedKeys: []string{}, NoKeys: true})
	}
	c.ForgetUsers = f.forget
	return c, nil
}

// readInput reads a file that a person named, or the standard input.
func readInput(app *cli.App, path string) ([]byte, error) {
	in := app.In
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fault.New(fault.Refuse, fault.Input, "name a file that can be read", "%w", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, operatorapi.MaxConfigChange+1))
	switch {
	case err != nil:
		return nil, fault.New(fault.Refuse, fault.Input, "name a file that can be read", "read %s: %w", path, err)
	case len(data) > operatorapi.MaxConfigChange:
		return nil, fault.New(fault.Refuse, fault.Input, "take out what isn't needed", "%s holds more than %s", path, cli.Bytes(operatorapi.MaxConfigChange))
	}
	return data, nil
}

func showNodeConfig(w io.Writer, c operatorapi.NodeConfig) error {
	changed := "never"
	if !c.ChangedAt.IsZero() {
		changed = c.ChangedAt.Format(time.RFC3339)
	}
	hosts := "nothing is set"
	if c.Hosts != nil {
		hosts = cli.Count(len(c.Hosts), "line")
	}
	if err := cli.Pairs(w, [][2]string{
		{"node", c.NodeName}, {"changed", changed}, {"digest", c.Digest}, {"host name", orDash(c.Hostname)}, {"hosts", hosts},
	}); err != nil {
		return err
	}
	var rows [][]string
	for _, h := range c.Hosts {
		rows = append(rows, []string{h.Address, strings.Join(h.Names, " ")})
	}
	if len(rows) > 0 {
		fmt.Fprintln(w)
		if err := cli.Rows(w, []string{"ADDRESS", "NAMES"}, rows); err != nil {
			return err
		}
	}
	if rows = keyRows(c.Users); len(rows) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return cli.Rows(w, []string{"USER", "KEY", "FINGERPRINT", "OPTIONS", "COMMENT"}, rows)
}

func keyRows(users []operatorapi.UserKeys) [][]string {
	var rows [][]string
	for _, u := range users {
		if len(u.AuthorizedKeys) == 0 {
			rows = append(rows, []string{u.Name, "none", "-", "-", ""})
		}
		for _, line := range u.AuthorizedKeys {
			k, err := nodeconfig.ParseKey(line)
			if err != nil {
				rows = append(rows, []string{u.Name, "?", "-", "-", line})
				continue
			}
			rows = append(rows, []string{u.Name, k.Type, k.Fingerprint(), orDash(k.Options), k.Comment})
		}
	}
	return rows
}
