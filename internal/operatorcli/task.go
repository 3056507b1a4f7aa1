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

func taskCommand(app *cli.App, conn *connection) *cobra.Command {
	return group("task", "Ask nodes for something, and see what came of it",
		taskCreateCommand(app, conn), taskListCommand(app, conn), taskShowCommand(app, conn), taskCancelCommand(app, conn))
}

func taskListCommand(app *cli.App, conn *connection) *cobra.Command {
	var which operatorclient.Listing
	var all bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List tasks, the newest first",
		Long: `List the tasks that haven't ended, the newest first; with --all those that have, too. Of each node the last hundred that
ended are kept.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			which.Open = !all
			return show(app, conn, func(c *operatorclient.Client) (operatorapi.TaskList, error) {
				return c.Tasks(cmd.Context(), which)
			}, func(w io.Writer, list operatorapi.TaskList) error { return taskTable(w, list.Tasks) })
		},
	}
	cmd.Flags().StringVar(&which.Node, "node", "", "the tasks of one node, by ID or name")
	cmd.Flags().BoolVar(&all, "all", false, "show tasks that have ended, too")
	cmd.Flags().IntVar(&which.Limit, "limit", operatorapi.DefaultListed, "how many to show at most")
	return cmd
}

func taskTable(w io.Writer, tasks []operatorapi.Task) error {
	rows := make([][]string, 0, len(tasks))
	for _, t := range tasks {
		rows = append(rows, []string{
			t.ID, t.NodeName, t.Kind, t.State, fmt.Sprintf("%d%%", t.Percent), fmt.Sprint(t.Attempt), t.RequestedBy,
			t.CreatedAt.UTC().Format(time.RFC3339), orDash(taskWord(t)),
		})
	}
	return cli.Rows(w, []string{"ID", "NODE", "KIND", "STATE", "DONE", "ATTEMPT", "BY", "CREATED", "SAYS"}, rows)
}

// taskWord is what a task has to say of itself: why it failed, or how far it is.
func taskWord(t operatorapi.Task) string {
	if t.Code != "" {
		return t.Code + ": " + cli.Printable(t.Error)
	}
	return cli.Printable(t.Message)
}

func taskShowCommand(app *cli.App, conn *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "show TASK",
		Short: "Show a task, its result and its output",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return show(app, conn, func(c *operatorclient.Client) (operatorapi.TaskDetail, error) {
				return c.Task(cmd.Context(), args[0])
			}, printTaskDetail)
		},
	}
}

func taskCancelCommand(app *cli.App, conn *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "cancel TASK",
		Short: "Ask for the end of a task",
		Long: `Ask for the end of a task. One that no node has is cancelled at once; a node that has it hears of it when it renews its lease, twenty
seconds later at most, and says what became of the task. One that has ended stays as it is.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return show(app, conn, func(c *operatorclient.Client) (operatorapi.Task, error) {
				return c.CancelTask(cmd.Context(), args[0])
			}, printTask)
		},
	}
}

func printTask(w io.Writer, t operatorapi.Task) error {
	pairs := [][2]string{
		{"task", t.ID},
		{"node", t.NodeName},
		{"kind", t.Kind},
		{"options", string(t.Options)},
		{"state", t.State},
		{"requested by", t.RequestedBy},
		{"created", t.CreatedAt.UTC().Format(time.RFC3339)},
		{"expires", orDash(moment(t.ExpiresAt))},
		{"begun", orDash(moment(t.BegunAt))},
		{"ended", orDash(moment(t.EndedAt))},
		{"attempt", fmt.Sprint(t.Attempt)},
		{"deadline", (time.Duration(t.DeadlineSeconds) * time.Second).String()},
		{"done", fmt.Sprintf("%d%%", t.Percent)},
	}
	for _, more := range [][2]string{{"lease ends", moment(t.LeaseExpiresAt)}, {"cancelled by", t.CancelledBy}, {"says", cli.Printable(t.Message)}, {"code", t.Code}, {"error", cli.Printable(t.Error)}} {
		if more[1] != "" {
			pairs = append(pairs, more)
		}
	}
	return cli.Pairs(w, pairs)
}

func printTaskDetail(w io.Writer, d operatorapi.TaskDetail) error {
	if err := printTask(w, d.Task); err != nil {
		return err
	}
	if len(d.Result) > 0 {
		if err := cli.Pairs(w, [][2]string{{"result", cli.Printable(string(d.Result))}}); err != nil {
			return err
		}
	}
	if d.Output == "" {
		return nil
	}
	fmt.Fprintln(w)
	if d.OutputDropped > 0 {
		fmt.Fprintf(w, "[%s before this are gone]\n", cli.Bytes(uint64(d.OutputDropped)))
	}
	for line := range strings.Lines(d.Output) {
		if _, err := fmt.Fprintln(w, cli.Printable(strings.TrimSuffix(line, "\n"))); err != nil {
			return err
		}
	}
	return nil
}

// moment renders a time that may not have come.
func moment(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
