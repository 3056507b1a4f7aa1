package operatorcli

import (
	"fmt"
	"io"
	"time"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/operatorapi"
)

// unfiledTable prints the renewals of certificates that weren't on file.
func unfiledTable(w io.Writer, list operatorapi.UnfiledList) error {
	if len(list.Renewals)+len(list.Left) == 0 {
		_, err := fmt.Fprintln(w, "no renewal of a certificate that wasn't on file waits")
		return err
	}
	if len(list.Renewals) > 0 {
		var rows [][]string
		for _, u := range list.Renewals {
			r := u.Renewal
			rows = append(rows, []string{
				u.NodeName, r.State, shortID(r.ID), r.Serial, r.AskedAt.Format(time.RFC3339), r.LastAskedAt.Format(time.RFC3339), orDash(r.From), orDash(r.DMIUUID),
			})
		}
		if err := cli.Rows(w, []string{"NODE", "STATE", "RENEWAL", "CERTIFICATE", "ASKED", "LAST ASKED", "FROM", "DMI UUID"}, rows); err != nil {
			return err
		}
	}
	if len(list.Left) == 0 {
		return nil
	}
	if len(list.Renewals) > 0 {
		fmt.Fprintln(w)
	}
	var rows [][]string
	for _, u := range list.Left {
		rows = append(rows, []string{u.NodeName, shortID(u.Renewal.ID), u.Why})
	}
	return cli.Rows(w, []string{"NODE TO DECIDE BY ITSELF", "RENEWAL", "WHY"}, rows)
}
