package operatorcli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
)

func tokenOperatorCommand(app *cli.App, conn *connection) *cobra.Command {
	return group("operator", "Make, list and revoke the tokens of operators",
		operatorCreateCommand(app, conn), operatorListCommand(app, conn), operatorRevokeCommand(app, conn))
}

// written is what token operator create prints where the token is in a file.
type written struct {
	Name      string           `json:"name"`
	Role      operatorapi.Role `json:"role"`
	CreatedAt time.Time        `json:"created_at"`
	File      string           `json:"file"`
}

func operatorCreateCommand(app *cli.App, conn *connection) *cobra.Command {
	var role, file string
	cmd := &cobra.Command{
		Use:   "create NAME --role ROLE",
		Short: "Make an operator's token",
		Long: `Make an operator's token. NAME is whose it is: the audit log says what was done by it. The roles are:

  read    sees everything but the audit log and the operators' tokens, and pulls from the registry
  deploy  also pushes, registers and assigns modules, and asks nodes for tasks
  admin   also decides who is a node, who is an operator, and who may log in on a node

The platform keeps only the token's hash. With --file the token goes, with all else that powernode takes by --config, into a new
file that only its owner may read; without, it is printed here and never again.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := operatorapi.OperatorCreate{Name: args[0], Role: operatorapi.Role(role)}
			if !in.Role.May(operatorapi.RoleRead) {
				return fault.New(fault.Refuse, fault.Input, "give --role read, --role deploy or --role admin", "no such role: %q", role)
			}
			if file != "" {
				return createOperatorFile(cmd.Context(), app, conn, in, file)
			}
			return show(app, conn, func(c *operatorclient.Client) (operatorapi.OperatorToken, error) {
				return c.CreateOperator(cmd.Context(), in)
			}, func(w io.Writer, t operatorapi.OperatorToken) error {
				return cli.Pairs(w, [][2]string{{"name", t.Name}, {"role", string(t.Role)}, {"platform", t.URL}, {"token", t.Token}})
			})
		},
	}
	cmd.Flags().StringVar(&role, "role", "", "what the token is good for: read, deploy or admin")
	cmd.Flags().StringVar(&file, "file", "", "write the token into this new file, as --config takes it, and don't print it")
	return cmd
}

// createOperatorFile makes the file before the token: one that can't be kept isn't made.
func createOperatorFile(ctx context.Context, app *cli.App, conn *connection, in operatorapi.OperatorCreate, path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fault.New(fault.Refuse, fault.Input, "name a new file with --file", "make the credential file: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	return show(app, conn, func(c *operatorclient.Client) (written, error) {
		t, err := c.CreateOperator(ctx, in)
		if err != nil {
			return written{}, err
		}
		data, err := json.MarshalIndent(operatorapi.Credentials{URL: t.URL, CAPEM: t.CAPEM, Token: t.Token}, "", "  ")
		if err == nil {
			_, err = f.Write(append(data, '\n'))
		}
		if err == nil {
			err = f.Sync()
		}
		if err != nil {
			return written{}, fault.New(fault.Retry, fault.Input, fmt.Sprintf("powernode token operator revoke %s, and make it again", t.Name),
				"write the token to %s: %w", path, err)
		}
		return written{Name: t.Name, Role: t.Role, CreatedAt: t.CreatedAt, File: path}, nil
	}, func(w io.Writer, t written) error {
		return cli.Pairs(w, [][2]string{{"name", t.Name}, {"role", string(t.Role)}, {"file", t.File}})
	})
}

func operatorListCommand(app *cli.App, conn *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the operators' tokens",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(app, conn, func(c *operatorclient.Client) (operatorapi.OperatorList, error) { return c.Operators(cmd.Context()) }, operatorTable)
		},
	}
}

func operatorRevokeCommand(app *cli.App, conn *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke NAME",
		Short: "Revoke an operator's token, from the next request on",
		Long: `Revoke an operator's token, from the next request on, and list those that remain. The platform's own, called ` + operatorapi.FirstOperator + `, can't be revoked:
powernode-platform serve --reset-operator replaces it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return show(app, conn, func(c *operatorclient.Client) (operatorapi.OperatorList, error) {
				return c.RevokeOperator(cmd.Context(), args[0])
			}, operatorTable)
		},
	}
}

func operatorTable(w io.Writer, list operatorapi.OperatorList) error {
	rows := make([][]string, 0, len(list.Operators))
	for _, o := range list.Operators {
		rows = append(rows, []string{o.Name, string(o.Role), o.CreatedAt.UTC().Format(time.RFC3339), orDash(o.CreatedBy)})
	}
	return cli.Rows(w, []string{"NAME", "ROLE", "CREATED", "BY"}, rows)
}
