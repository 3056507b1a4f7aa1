// Command powernode: see package operatorcli.
package main

import (
	"context"
	"os"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/operatorcli"
)

func main() {
	app := cli.NewApp()
	os.Exit(app.Run(context.Background(), operatorcli.New(app), os.Args[1:]))
}
