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

func nodeShowCommand(app *cli.App, conn *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "show NODE",
		Short: "Show a node: what it runs, what it should run, and what happened to it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return show(app, conn, func(c *operatorclient.Client) (operatorapi.NodeDetail, error) { return c.Node(cmd.Context(), args[0]) }, showNode)
		},
	}
}

func showNode(w io.Writer, d operatorapi.NodeDetail) error {
	n := d.Node
	pairs := [][2]string{
		{"node", n.Name},
		{"id", n.ID},
		{"status", string(n.Status)},
		{"state", stateText(n)},
		{"architecture", orDash(n.Architecture)},
		{"expected root", orDash(n.ExpectedRootDigest)},
	}
	if n.ExpectedRootError != "" {
		pairs = append(pairs, [2]string{"no expected root", n.ExpectedRootError})
	}
	pairs = append(pairs, words(d.RemoveMost, d.Assignments)...)
	if r := n.Report; r != nil {
		pairs = append(pairs, [][2]string{
			{"reported root", orDash(r.RootDigest)},
			{"integrity level", orDash(r.IntegrityLevel)},
			{"mount state", r.MountState},
			{"generation", fmt.Sprint(r.Generation)},
			{"agent", r.AgentVersion + " on " + r.Architecture},
			{"boot id", r.BootID},
			{"up", (time.Duration(r.UptimeSeconds) * time.Second).String()},
			{"load", orDash(r.LoadAverage)},
			{"memory free", cli.Bytes(uint64(max(r.MemoryFreeKB, 0)) * 1024)},
		}...)
		for _, remark := range r.Remarks {
			pairs = append(pairs, [2]string{"remark", remark})
		}
	}
	pairs = append(pairs, [2]string{"heartbeat", heartbeatAge(n)})
	if len(d.Boots) > 0 {
		pairs = append(pairs, lastBoot(d.Boots[0])...)
	}
	for _, text := range n.Attention {
		pairs = append(pairs, [2]string{"attention", text + "; if you know why, powernode node approve " + n.Name + " --attention, else revoke it"})
	}
	for _, r := range d.Renewals {
		if r.State == renewalWaiting {
			pairs = append(pairs, [2]string{"renewal waits", renewalText(n, r)})
		}
	}
	if err := cli.Pairs(w, pairs); err != nil {
		return err
	}
	for _, part := range []struct {
		header []string
		rows   [][]string
	}{
		{moduleHeader, moduleRows(d.Assignments)},
		{[]string{"RENEWAL", "STATE", "CERTIFICATE", "WHY", "ASKED", "LAST ASKED", "FROM", "DMI UUID", "AGENT"}, renewalRows(d.Renewals)},
		{[]string{"CERTIFICATE", "STATE", "SINCE", "BY", "VALID FROM", "UNTIL"}, certificateRows(d.Certificates)},
		{[]string{"CONFLICT", "WINNER", "LOSERS", "REASON"}, conflictRows(d.Conflicts)},
		{[]string{"STAGE OF THE LAST BOOT", "BEGUN", "TOOK", "RESULT"}, stageRows(d.Boots)},
		{[]string{"BOOT", "BEGUN", "OUTCOME", "GENERATION", "TOOK", "WHY"}, bootRows(d.Boots)},
		{[]string{"AT", "EVENT", "WHAT"}, eventRows(d.Events)},
	} {
		if len(part.rows) == 0 {
			continue
		}
		fmt.Fprintln(w)
		if err := cli.Rows(w, part.header, part.rows); err != nil {
			return err
		}
	}
	return nil
}

// stateText says whether a node runs what it should, and why not.
func stateText(n operatorapi.Node) string {
	if n.StateReason == "" {
		return string(n.State)
	}
	return string(n.State) + ": " + n.StateReason
}

// shownConflicts is how many conflicts a person is shown; --output json has all that are kept.
const shownConflicts = 20

func conflictRows(list []operatorapi.Conflict) [][]string {
	var rows [][]string
	for i, c := range list {
		if i == shownConflicts {
			return append(rows, []string{fmt.Sprintf("and %d more", len(list)-i), "", "", ""})
		}
		rows = append(rows, []string{c.Path, c.Winner, strings.Join(c.Losers, ", "), c.Reason})
	}
	return rows
}

func eventRows(list []operatorapi.Event) [][]string {
	var rows [][]string
	for _, e := range list {
		rows = append(rows, []string{e.At.Format(time.RFC3339), e.Kind, e.Text})
	}
	return rows
}
