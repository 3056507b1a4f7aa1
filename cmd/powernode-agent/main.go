// Command powernode-agent: see package agentcli.
package main

import (
	"context"
	"os"

	"github.com/powernode/powernode-agent/internal/agentcli"
	"github.com/powernode/powernode-agent/internal/cli"
)

func main() {
	app := cli.NewApp()
	os.Exit(app.Run(context.Background(), agentcli.New(app), agentcli.Arguments(os.Getpid(), os.Args)))
}
