// Command powernode-agent: see package agentcli.
package main

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/agentcli"
	"github.com/powernode/powernode-agent/internal/cli"
)

func main() {
	begin()
	app := cli.NewApp()
	os.Exit(app.Run(context.Background(), agentcli.New(app), agentcli.Arguments(os.Getpid(), os.Args)))
}

// begin has the modes of what is made be those that are asked for: the directories of a root are everybody's, whatever the umask of the unit or the
// shell that has the root changed. What is secret is made with a mode that says so.
func begin() { unix.Umask(0o022) }
