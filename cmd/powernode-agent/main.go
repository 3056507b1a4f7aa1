// Command powernode-agent: see package agentcli.
package main

import (
	"context"
	"os"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/agentcli"
)

func main() {
	app := cli.NewApp()
	os.Exit(app.Run(context.Background(), agentcli.New(app), os.Args[1:]))
}
