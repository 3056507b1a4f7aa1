package operatorcli

import (
	"fmt"
	"strconv"
	"time"

	"github.com/powernode/powernode-agent/internal/operatorapi"
)

// shownBoots is how many boots a person is shown; --output json has all that are kept.
const shownBoots = 5

// lastBoot says how the last boot went.
func lastBoot(b operatorapi.Boot) [][2]string {
	text := fmt.Sprintf("%s, begun %s", b.Outcome, b.BegunAt.UTC().Format(time.RFC3339))
	if took := bootTook(b); took != "-" {
		text += ", took " + took
	}
	pairs := [][2]string{{"last boot", text}}
	if why := bootWhy(b); why != "" {
		pairs = append(pairs, [2]string{"boot trouble", why})
	}
	if t := b.Trial; t != nil {
		pairs = append(pairs, [2]string{"trial", fmt.Sprintf("generation %d: %s, attempt %d", t.Generation, t.Verdict, t.Attempts)})
	}
	for _, remark := range b.Remarks {
		pairs = append(pairs, [2]string{"boot remark", remark})
	}
	return pairs
}

// bootTook returns how long a boot took from power-on to its end.
func bootTook(b operatorapi.Boot) string {
	if b.EndedMillis == 0 {
		return "-"
	}
	return milliseconds(b.EndedMillis)
}

func milliseconds(n int64) string { return (time.Duration(n) * time.Millisecond).String() }

// bootWhy says what went wrong in a boot, or why it isn't of the newest generation; "" for nothing.
func bootWhy(b operatorapi.Boot) string {
	switch {
	case b.Failure != "" && b.Stage != "":
		return b.Stage + ": " + b.Failure
	case b.Failure != "":
		return b.Failure
	case b.Trial != nil && b.Trial.Verdict == "failed":
		return fmt.Sprintf("generation %d failed its trial: %s", b.Trial.Generation, b.Trial.Reason)
	case b.Fallback != nil:
		return fmt.Sprintf("generation %d failed its trial: %s", b.Fallback.Generation, b.Fallback.Reason)
	}
	return ""
}

func stageRows(boots []operatorapi.Boot) [][]string {
	if len(boots) == 0 {
		return nil
	}
	var rows [][]string
	for _, s := range boots[0].Stages {
		result := s.Result
		if s.Error != "" {
			result = "failed: " + s.Error
		}
		rows = append(rows, []string{s.Name, milliseconds(s.BegunMillis), milliseconds(s.Millis), result})
	}
	return rows
}

func bootRows(boots []operatorapi.Boot) [][]string {
	var rows [][]string
	for i, b := range boots {
		if i == shownBoots {
			return append(rows, []string{fmt.Sprintf("and %d more", len(boots)-i), "", "", "", "", ""})
		}
		number, generation := "-", "-"
		if b.Number != 0 {
			number = strconv.FormatUint(b.Number, 10)
		}
		if b.Generation != 0 {
			generation = strconv.FormatUint(b.Generation, 10)
		}
		rows = append(rows, []string{number, b.BegunAt.UTC().Format(time.RFC3339), b.Outcome, generation, bootTook(b), orDash(bootWhy(b))})
	}
	return rows
}
