package docs

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/agentcli"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/operatorcli"
	"github.com/powernode/powernode-agent/internal/platformcli"
)

// programs are the command trees by the program's name.
var programs = map[string]func(*cli.App) *cobra.Command{
	"powernode-agent":    agentcli.New,
	"powernode-platform": platformcli.New,
	"powernode":          operatorcli.New,
}

func newTree(program string) *cobra.Command {
	app := &cli.App{In: new(bytes.Buffer), Out: new(bytes.Buffer), Err: new(bytes.Buffer), Getenv: func(string) string { return "" }, Format: cli.Table}
	root := programs[program](app)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}

// ours returns the program that the words start, and its arguments; "" if they start none.
func ours(words []string) (program string, args []string) {
	for i, w := range words {
		if base := path.Base(w); programs[base] != nil {
			return base, words[i+1:]
		}
	}
	return "", nil
}

// checkCommand reports what is wrong with a command line. With whole set it must be complete;
// otherwise only subcommands and flags must exist. A "…" stands for whatever else is needed.
func checkCommand(program string, args []string, whole bool) error {
	if i := slices.Index(args, "…"); i >= 0 {
		args, whole = slices.Delete(slices.Clone(args), i, i+1), false
	}
	cmd, rest, err := newTree(program).Find(args)
	if err != nil {
		return err
	}
	cmd.InitDefaultHelpFlag()
	if whole {
		if err := cmd.ParseFlags(rest); err != nil {
			return err
		}
		for _, check := range []func() error{
			func() error { return cmd.ValidateArgs(cmd.Flags().Args()) }, cmd.ValidateRequiredFlags, cmd.ValidateFlagGroups,
		} {
			if err := check(); err != nil {
				return err
			}
		}
		return nil
	}
	for _, arg := range rest {
		name, isFlag := strings.CutPrefix(arg, "--")
		name, _, _ = strings.Cut(name, "=")
		switch {
		case arg == "--":
			return nil
		case isFlag && cmd.Flags().Lookup(name) == nil && cmd.InheritedFlags().Lookup(name) == nil:
			return fmt.Errorf("%s has no flag --%s", cmd.CommandPath(), name)
		case !strings.HasPrefix(arg, "-") && cmd.HasSubCommands():
			return fmt.Errorf("%s has no command %s", cmd.CommandPath(), arg)
		}
	}
	return nil
}

// TestCommandLines: every command line in a block of a page is one that the program takes, and
// every one in running text names commands and flags that exist.
func TestCommandLines(t *testing.T) {
	blocks, spans := 0, 0
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if !slices.Contains([]string{"", "sh", "bash", "console"}, b.language) {
				continue
			}
			for _, c := range commands(b.text) {
				program, args := ours(c.words)
				if program == "" {
					continue
				}
				blocks++
				if err := checkCommand(program, args, true); err != nil {
					t.Errorf("%s:%d: %s %s: %v", p.path, b.line+c.line, program, strings.Join(args, " "), err)
				}
			}
		}
		for i, line := range p.prose {
			for _, span := range codeForm.FindAllString(line, -1) {
				for _, c := range commands(strings.Trim(span, "`")) {
					program, args := ours(c.words)
					if program == "" || len(args) == 0 {
						continue
					}
					spans++
					if err := checkCommand(program, args, false); err != nil {
						t.Errorf("%s:%d: %s: %v", p.path, i+1, span, err)
					}
				}
			}
		}
	}
	if blocks < 10 || spans < 20 {
		t.Errorf("only %d command lines in blocks and %d in text found", blocks, spans)
	}
}

// TestExamplesOfTheHelp: what --help shows as an example is complete and right.
func TestExamplesOfTheHelp(t *testing.T) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, c := range commands(cmd.Example) {
			program, args := ours(c.words)
			if program == "" {
				t.Errorf("%s: the example %q starts none of our programs", cmd.CommandPath(), c.words)
			} else if err := checkCommand(program, args, true); err != nil {
				t.Errorf("%s: the example %q: %v", cmd.CommandPath(), c.words, err)
			}
		}
		for _, sub := range cmd.Commands() {
			if sub.Name() != "completion" && sub.Name() != "help" {
				walk(sub)
			}
		}
	}
	for program := range programs {
		walk(newTree(program))
	}
}

// TestCheckCommand makes sure that the checks above can say no.
func TestCheckCommand(t *testing.T) {
	for _, c := range []struct {
		line  string
		whole bool
		wrong string
	}{
		{"powernode module publish out --key release.key", true, ""},
		{"powernode module publish --key release.key … ", true, ""},
		{"sudo A=1 ./bin/powernode token create web --ttl 2h # for an hour", true, ""},
		{"unshare --pid powernode-agent boot --namespace -- /sbin/init --flag-of-its-own", true, ""},
		{"powernode module", false, ""},
		{"powernode module build --base", false, ""},
		{"powernode modul publish out", true, "unknown command"},
		{"powernode module sign out", true, "unknown command"},
		{"powernode module sign", false, "no command"},
		{"powernode module publish", true, "requires at least 1 arg"},
		{"powernode module publish out --kye release.key", true, "unknown flag"},
		{"powernode module publish --kye", false, "no flag --kye"},
		{"powernode module publish out --priority high", true, "invalid argument"},
		{"powernode-agent status extra", true, "unknown command"},
	} {
		program, args := ours(commands(c.line)[0].words)
		err := checkCommand(program, args, c.whole)
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: %v, want %q", c.line, err, c.wrong)
		}
	}
}
