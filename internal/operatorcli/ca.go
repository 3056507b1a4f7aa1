package operatorcli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
)

func caCommand(app *cli.App, conn *connection) *cobra.Command {
	return group("ca", "Roll the platform's certificate authority",
		caListCommand(app, conn), caPrepareCommand(app, conn), caActivateCommand(app, conn), caRetireCommand(app, conn))
}

func caListCommand(app *cli.App, conn *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the authorities, and the nodes that keep the old one from being retired",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(app, conn, func(c *operatorclient.Client) (operatorapi.CAList, error) { return c.CA(cmd.Context()) }, caTable)
		},
	}
}

func caPrepareCommand(app *cli.App, conn *connection) *cobra.Command {
	takeUp := ""
	cmd := &cobra.Command{
		Use:   "prepare",
		Short: "Make the next authority, and tell it to the nodes",
		Long: `Make the next authority, and tell it to the nodes: they trust it beside the present one from their next
heartbeat on. It signs nothing yet; powernode ca activate lets it. To drop it again, retire it by its ID.

--take-up takes an authority whose key is there and which the record of the authorities doesn't name, as
after an older backup of the record was restored; powernode ca list says so. Activate it then.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(app, conn, func(c *operatorclient.Client) (operatorapi.CAList, error) {
				if takeUp != "" {
					return c.TakeUpCA(cmd.Context(), takeUp)
				}
				return c.PrepareCA(cmd.Context())
			}, caTable)
		},
	}
	cmd.Flags().StringVar(&takeUp, "take-up", "", "ID of an authority that the record doesn't name, instead of a new one")
	return cmd
}

func caActivateCommand(app *cli.App, conn *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "activate",
		Short: "Let the prepared authority sign from now on",
		Long: `Let the prepared authority sign from now on: nodes' certificates, and the platform's own. Certificates of
the one before stay good, and the nodes are asked to get one of the new authority with their next
heartbeat. A node that is off meanwhile is led to the new authority by a certificate of the old one.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(app, conn, func(c *operatorclient.Client) (operatorapi.CAList, error) { return c.ActivateCA(cmd.Context()) }, caTable)
		},
	}
}

func caRetireCommand(app *cli.App, conn *connection) *cobra.Command {
	var in operatorapi.CARetire
	cmd := &cobra.Command{
		Use:   "retire [AUTHORITY]",
		Short: "Trust the old authority no more, and destroy its key",
		Long: `Trust the old authority no more, and destroy its key. Without an ID it is the oldest one that is still
trusted. It is refused while nodes hold certificates by it, or haven't said that they trust the new
one; powernode ca list names them.

--force retires it all the same: certificates by it end now, and such a node must renew its own, by
the platform's policy (powernode-platform serve --renew-expired), when it comes back. Without --force
the refusal says for how many nodes that is, and what the policy makes of them.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				in.Authority = args[0]
			}
			return show(app, conn, func(c *operatorclient.Client) (operatorapi.CAList, error) { return c.RetireCA(cmd.Context(), in) }, caTable)
		},
	}
	cmd.Flags().BoolVar(&in.Force, "force", false, "though nodes still need it")
	return cmd
}

func caTable(w io.Writer, list operatorapi.CAList) error {
	rows := make([][]string, 0, len(list.Authorities))
	for _, a := range list.Authorities {
		presents := "-"
		if a.Presents {
			presents = "yes"
		}
		rows = append(rows, []string{
			a.ID, string(a.State), a.NotAfter.Format(time.RFC3339), fmt.Sprint(a.Certificates), presents, orDash(a.CrossSignedBy), cli.ShortDigest(a.SHA256),
		})
	}
	if err := cli.Rows(w, []string{"AUTHORITY", "STATE", "VALID UNTIL", "CERTIFICATES", "PRESENTED", "VOUCHED FOR BY", "SHA256"}, rows); err != nil {
		return err
	}
	if len(list.Behind) > 0 {
		rows = rows[:0]
		for _, n := range list.Behind {
			rows = append(rows, []string{n.NodeName, strings.Join(n.Reasons, "; ")})
		}
		fmt.Fprintln(w)
		if err := cli.Rows(w, []string{"NODE", "WHY IT STILL NEEDS THE OLD AUTHORITY"}, rows); err != nil {
			return err
		}
	}
	if len(list.Attention) == 0 {
		return nil
	}
	pairs := make([][2]string, 0, len(list.Attention))
	for _, text := range list.Attention {
		pairs = append(pairs, [2]string{"attention", text})
	}
	fmt.Fprintln(w)
	return cli.Pairs(w, pairs)
}
