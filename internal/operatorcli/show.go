package operatorcli

import (
	"io"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/operatorclient"
)

// show asks the platform one thing and prints the answer: as JSON, or for people by table.
func show[T any](app *cli.App, conn *connection, ask func(*operatorclient.Client) (T, error), table func(io.Writer, T) error) error {
	client, err := conn.client()
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := ask(client)
	if err != nil {
		return err
	}
	return app.Print(answer, func(w io.Writer) error { return table(w, answer) })
}
