package agentcli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/rootfs"
	"github.com/powernode/powernode-agent/internal/store"
)

// statusDoc is the documented shape of `status --output json`.
type statusDoc struct {
	// InStep says that what is mounted is what should be; Reasons say why not.
	InStep  bool     `json:"in_step"`
	Reasons []string `json:"reasons,omitempty"`

	InstanceID string `json:"instance_id,omitempty"`
	Generation uint64 `json:"generation"`
	// RootDigest is read from the kernel's mount table, the record's is what the generation says.
	RootDigest       fsverity.Digest `json:"root_digest"`
	RecordRootDigest fsverity.Digest `json:"record_root_digest"`
	// ExpectedRootDigest is the platform's at the last boot.
	ExpectedRootDigest fsverity.Digest `json:"expected_root_digest"`
	Level              mount.Level     `json:"integrity_level,omitempty"`
	// Mounts are "/" and the directories in it that show another root image since a live change; none where no root of
	// ours is mounted.
	Mounts  []mountDoc     `json:"mounts"`
	Upper   *upperDoc      `json:"upper,omitempty"`
	Delta   *deltaDoc      `json:"delta,omitempty"`
	Modules []statusModule `json:"modules"`
	// Local is what was attached and detached here, whatever the platform assigns.
	Local *localDoc `json:"local,omitempty"`
	// Drift is in what the modules differ from the platform's list at the last update of this boot.
	Drift *driftDoc `json:"drift,omitempty"`
	// Pending is what is yet to come of what was asked for.
	Pending *pendingDoc `json:"pending,omitempty"`
	// Services are those of the modules.
	Services []serviceDoc `json:"services,omitempty"`
	// Processes use files that were replaced since they began.
	Processes     []aftercare.Process `json:"processes,omitempty"`
	MoreProcesses int                 `json:"more_processes,omitempty"`
	// Trial is there while the generation that runs isn't known to be good, LastFailed where one was
	// tried and isn't any more.
	Trial      *trialDoc  `json:"trial,omitempty"`
	LastFailed *failedDoc `json:"last_failed,omitempty"`
	// Damage is what of the generation isn't as it was signed; Checked says that all of it was read.
	Damage  []reconcile.Damage `json:"damage,omitempty"`
	Checked *checkedDoc        `json:"checked,omitempty"`
	// Credentials are the node's certificate; whether they serve says nothing of what is mounted.
	Credentials *credentialsDoc `json:"credentials,omitempty"`
	Remarks     []string        `json:"remarks,omitempty"`
}

// upperDoc is how full the writable layer is.
type upperDoc struct {
	UsedBytes  uint64 `json:"used_bytes"`
	TotalBytes uint64 `json:"total_bytes"`
	// AvailableBytes is what can still be written; Percent and Fullness go by that, and by the number of files.
	AvailableBytes uint64          `json:"available_bytes"`
	Percent        int             `json:"percent"`
	Fullness       rootfs.Fullness `json:"fullness"`
	Warning        string          `json:"warning,omitempty"`
}

func statusCommand(app *cli.App) *cobra.Command {
	var stateDir string
	var check bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what is mounted, against what should be",
		Long: `Show what is mounted as "/", read from the kernel's own tables, against the current generation, or
against the one that this boot tries. A file that the kernel refused to read because it is damaged
(fs-verity) is named with its module; --check reads every byte of every module, which finds what
nobody has read yet.

The exit code is 0 when they are in step, 2 when something is damaged, 3 when no root of ours is
mounted, and 8 when they aren't in step for another reason, or when the generation isn't found good yet.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			doc, err := readStatus(cmd.Context(), "/", stateDir, check)
			if err != nil {
				return err
			}
			if err := app.Print(doc, doc.table); err != nil {
				return err
			}
			return doc.exit()
		},
	}
	stateFlag(cmd, &stateDir)
	cmd.Flags().BoolVar(&check, "check", false, "read every byte of every module, which takes a while")
	return cmd
}

// exit returns the status as an exit code.
func (d statusDoc) exit() error {
	switch {
	case len(d.Damage) > 0:
		return cli.ExitStatus(cli.ExitVerify)
	case len(d.Mounts) == 0:
		return cli.ExitStatus(cli.ExitMount)
	case !d.InStep:
		return cli.ExitStatus(cli.ExitPartial)
	}
	return nil
}

// stateFlag adds the flag that names the directory of record.
func stateFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "state", boot.StateDir(boot.PersistInRoot), "the directory of record")
}

// openStore opens the store in a directory of record, for reading.
func openStore(dir string) (*store.Store, error) {
	st, err := store.Open(dir, store.Options{ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Refuse, fault.Input, "run it on a node that has booted, or name the directory of record with --state", "%w", err)
	}
	return st, err
}

// readStatus gathers the status. Only a store that can't be read at all is an error; everything
// else that is wrong is in the answer.
func readStatus(ctx context.Context, root, stateDir string, check bool) (statusDoc, error) {
	st, err := openStore(stateDir)
	if err != nil {
		return statusDoc{}, err
	}
	defer st.Close()
	var doc statusDoc
	reason := func(format string, args ...any) { doc.Reasons = append(doc.Reasons, fmt.Sprintf(format, args...)) }

	facts, err := boot.ReadFacts(root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		reason("this system was not booted by powernode-agent")
	case err != nil:
		reason("%v", err)
	default:
		doc.InstanceID, doc.ExpectedRootDigest, doc.Remarks = facts.InstanceID, facts.ExpectedRootDigest, facts.Remarks
		if facts.Refused != "" {
			reason("this boot is not of what was assigned: %s", facts.Refused)
		}
	}
	doc.mounted(root, st, facts)
	doc.trials(st, facts, filepath.Join(root, boot.RunDir))
	should, err := st.Pointer(store.Current)
	if doc.Trial != nil {
		should, err = doc.Trial.Generation, nil
	} else if f := doc.LastFailed; f != nil && f.Generation == should && facts.Generation != 0 {
		// It went live and doesn't boot: what was booted before runs, and is current once the service has begun.
		should = facts.Generation
	}
	if err == nil && should == 0 {
		reason("there is no current generation")
	} else if err == nil {
		var g store.Generation
		if g, err = st.Generation(should); err == nil {
			doc.Generation, doc.RecordRootDigest, doc.Modules = g.Number, g.RootDigest, statusModules(g.Modules)
		}
	}
	if err != nil {
		reason("%v", err)
	}
	if !doc.RootDigest.IsZero() && !doc.RecordRootDigest.IsZero() && doc.RootDigest != doc.RecordRootDigest {
		reason("root %s is mounted, and generation %d is %s", doc.RootDigest, doc.Generation, doc.RecordRootDigest)
	}
	if doc.Credentials, err = readCredentials(stateDir); err != nil {
		doc.Remarks = append(doc.Remarks, err.Error())
	}
	doc.pending(st, stateDir, filepath.Join(root, boot.RunDir), facts.Generation)
	doc.drift(filepath.Join(root, boot.RunDir))
	doc.services(ctx, filepath.Join(root, runRoot))
	doc.delta(ctx, root, st, facts)
	if err := doc.processes(ctx, root); err != nil {
		return statusDoc{}, err
	}
	runs := doc.Generation
	if facts.Generation != 0 {
		runs = facts.Generation
	}
	if err := doc.damage(ctx, st, runs, check); err != nil {
		return statusDoc{}, err
	}
	doc.InStep = len(doc.Reasons) == 0
	return doc, nil
}
