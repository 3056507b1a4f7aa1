package operatorcli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
)

// taskLook is how often task create --wait asks what became of its task.
const taskLook = time.Second

func taskCreateCommand(app *cli.App, conn *connection) *cobra.Command {
	var options nodeapi.TaskOptions
	var deadline, expiresIn time.Duration
	var wait bool
	cmd := &cobra.Command{
		Use:   "create NODE KIND [MODULE...]",
		Short: "Ask a node for something",
		Long: `Ask a node for something. It begins at once if the node waits for tasks, and else when the node is heard of again; tasks that
change what runs follow each other in the order of their creation. A task that its node hasn't come for in the time that --expires-in
gives it fails with the code EXPIRED, and isn't done later.

  attach, detach   give the node the named modules, or take them from it
  update, sync     bring the node to the platform's list of modules; sync takes up its configuration, too
  rollback         go back to the generation before, or to --generation
  init             start, stop, restart, reload a module's services, or show their status (--action)
  reboot           restart the machine; soft-reboot restarts all but the kernel
  rotate           get a certificate for a new key
  introspect       say what the node is and has
  gc               remove what no generation needs any more

No node runs a shell line that it is sent.`,
		Example: `  powernode task create web-1 sync --wait
  powernode task create web-1 init nginx --action restart
  powernode task create web-1 reboot --expires-in 1h`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			options.Modules = args[2:]
			raw, err := json.Marshal(options)
			if err != nil {
				return err
			}
			if expiresIn <= 0 {
				return fault.New(fault.Refuse, fault.Input, "use 168h for seven days", "--expires-in %s: a task can't expire before it is asked for", expiresIn)
			}
			in := operatorapi.TaskCreate{ID: newTaskID(), Kind: args[1], Options: raw, DeadlineSeconds: seconds(deadline), ExpiresInSeconds: seconds(expiresIn)}
			return createTask(cmd.Context(), app, conn, args[0], in, wait)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&options.Action, "action", "", "what init does: start, stop, restart, reload or status")
	flags.Uint64Var(&options.Generation, "generation", 0, "the generation that rollback goes to (default the one before)")
	flags.BoolVar(&options.Stage, "stage", false, "leave what runs alone, and have the next boot try it")
	flags.BoolVar(&options.AllowDowngrade, "allow-downgrade", false, "let modules go below the highest version that was current")
	flags.BoolVar(&options.RemoveMost, "remove-most", false, "let more than half of the modules go at once")
	flags.BoolVar(&options.Retry, "retry", false, "try modules again that failed")
	flags.IntVar(&options.Keep, "keep", 0, "how many of the newest generations gc keeps (default the agent's own number)")
	flags.DurationVar(&deadline, "deadline", 0, "how long an attempt may take (default as long as the kind has)")
	flags.DurationVar(&expiresIn, "expires-in", operatorapi.DefaultTaskLife, "how long the task may wait for its node")
	flags.BoolVar(&wait, "wait", false, "wait for its end; the exit code says whether it was done")
	return cmd
}

// seconds are those of d, rounded up, so that what isn't none never becomes none.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// newTaskID returns a random UUID (RFC 9562, version 4): a request that is sent again makes no second task.
func newTaskID() string {
	var b [16]byte
	// crypto/rand.Read never fails: it ends the process where the system has no randomness.
	_, _ = rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func createTask(ctx context.Context, app *cli.App, conn *connection, node string, in operatorapi.TaskCreate, wait bool) error {
	if !wait {
		return show(app, conn, func(c *operatorclient.Client) (operatorapi.Task, error) { return c.CreateTask(ctx, node, in) }, printTask)
	}
	var end operatorapi.TaskDetail
	if err := show(app, conn, func(c *operatorclient.Client) (operatorapi.TaskDetail, error) {
		task, err := c.CreateTask(ctx, node, in)
		if err == nil {
			end, err = awaitTask(ctx, c, task.ID)
		}
		return end, err
	}, printTaskDetail); err != nil {
		return err
	}
	if t := end.Task; t.State != string(nodeapi.TaskComplete) {
		return fault.New(fault.Refuse, fault.General, "", "task %s of node %s is %s: %s", t.ID, t.NodeName, t.State, taskWord(t))
	}
	return nil
}

// awaitTask asks for a task until it has ended. That the platform is away for a while changes nothing.
func awaitTask(ctx context.Context, c *operatorclient.Client, id string) (operatorapi.TaskDetail, error) {
	for {
		d, err := c.Task(ctx, id)
		switch {
		case err != nil && fault.KindOf(err) != fault.Retry:
			return d, err
		case err == nil && nodeapi.TaskState(d.Task.State).Ended():
			return d, nil
		}
		select {
		case <-ctx.Done():
			return d, fmt.Errorf("wait for task %s, which goes on: %w", id, context.Cause(ctx))
		case <-time.After(taskLook):
		}
	}
}
