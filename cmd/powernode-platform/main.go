// Command powernode-platform: see package platformcli.
package main

import (
	"context"
	"os"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/platformcli"
)

func main() {
	app := cli.NewApp()
	os.Exit(app.Run(context.Background(), platformcli.New(app), os.Args[1:]))
}
