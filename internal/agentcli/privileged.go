package agentcli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/health/systemd"
)

// programs runs programs outside of the process that asks. A systemd.Manager does.
type programs interface {
	RunOnce(ctx context.Context, p systemd.Program, within time.Duration) (status int, err error)
}

// privileged is how the service has done what its sandbox keeps it from, as everything that changes mounts: by a command of this same
// program, which systemd runs as a unit of its own. The command takes the lock that it would take by a person's hand.
type privileged struct {
	systemd programs
	// runDir is where its answers are, for a moment unless keep is set; only root gets there.
	runDir string
	// keep leaves an answer that was read until the next command by that name, for a service that begins before what it says is done with.
	keep bool
}

// answerMax bounds an answer, in bytes: the service reads it whole. What commands print for tasks is cut to nodeapi.MaxTaskResult before.
const answerMax = 256 << 10

// run runs the command ARGS, as the unit powernode-agent-NAME.service, one at a time by that name, and reads the document that it
// prints into doc where it ends with 0 or is done in part (cli.ExitPartial). It returns the exit code of the command, whose errors are in the unit's
// journal. The error wraps systemd.ErrNone where no systemd runs, and systemd.ErrRuns where such a command is at work
// already; one that takes longer than within goes on without anybody waiting.
func (p privileged) run(ctx context.Context, name string, within time.Duration, doc any, args ...string) (code int, err error) {
	code, err = p.systemd.RunOnce(ctx, systemd.Program{
		Unit: unitOf(name), Description: "Powernode agent: " + name, Output: p.runDir + "/" + answerOf(name),
		Args: append(append([]string{boot.AgentPath}, args...), "--output", "json"),
	}, within)
	if err != nil || code != 0 && code != cli.ExitPartial {
		return code, err
	}
	ok, err := p.answer(name, doc)
	if err == nil && !ok {
		err = fs.ErrNotExist
	}
	if err != nil {
		return code, fmt.Errorf("read the answer of %s: %w", unitOf(name), err)
	}
	return code, nil
}

// answer reads what a command has printed, and removes it unless answers are kept: so what is there, nobody has read yet. ok is false where
// there is none; while the command is at work there is an error, as its document isn't whole.
func (p privileged) answer(name string, doc any) (ok bool, err error) {
	dir, err := durable.OpenDir(p.runDir, nil)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	text, err := dir.ReadFile(answerOf(name), answerMax)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(text, doc)
	}
	if err == nil && !p.keep {
		err = dir.Remove(answerOf(name), "answer")
	}
	return err == nil, err
}

// answerOf is the file that takes what a command prints.
func answerOf(name string) string { return name + ".answer.json" }

func unitOf(name string) string { return "powernode-agent-" + name + ".service" }
