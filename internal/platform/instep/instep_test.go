package instep

import (
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/operatorapi"
)

func TestJudge(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		facts Facts
		want  operatorapi.NodeState
	}{
		"never heard of":                        {Facts{Expected: "a"}, operatorapi.StateUnknown},
		"in step":                               {Facts{Heard: now, Expected: "a", Reported: "a", Mounted: true}, operatorapi.StateInStep},
		"in step, just in time":                 {Facts{Heard: now.Add(-operatorapi.StaleAfter), Expected: "a", Reported: "a"}, operatorapi.StateInStep},
		"late, and not too late":                {Facts{Heard: now.Add(-4 * time.Minute), SilentAfter: 4 * time.Minute, Expected: "a", Reported: "a"}, operatorapi.StateInStep},
		"later than that":                       {Facts{Heard: now.Add(-4*time.Minute - 1), SilentAfter: 4 * time.Minute, Expected: "a", Reported: "a"}, operatorapi.StateSilent},
		"too late":                              {Facts{Heard: now.Add(-operatorapi.StaleAfter - 1), Expected: "a", Reported: "a"}, operatorapi.StateSilent},
		"silent and drifted":                    {Facts{Heard: now.Add(-time.Hour), Expected: "a", Reported: "b"}, operatorapi.StateSilent},
		"the clock was set back":                {Facts{Heard: now.Add(time.Hour), Expected: "a", Reported: "a"}, operatorapi.StateInStep},
		"nothing assigned, nothing run":         {Facts{Heard: now}, operatorapi.StateInStep},
		"what was expected earlier":             {Facts{Heard: now, Expected: "a", Reported: "b", Explained: true, Mounted: true}, operatorapi.StateBehind},
		"all was taken away, not yet done":      {Facts{Heard: now, Reported: "b", Explained: true, Mounted: true}, operatorapi.StateBehind},
		"nothing run yet":                       {Facts{Heard: now, Expected: "a"}, operatorapi.StateBehind},
		"another root":                          {Facts{Heard: now, Expected: "a", Reported: "b", Mounted: true}, operatorapi.StateDrifted},
		"a root where none is assigned":         {Facts{Heard: now, Reported: "b"}, operatorapi.StateDrifted},
		"expected again, though not on file":    {Facts{Heard: now, Expected: "a", Reported: "a", Explained: false}, operatorapi.StateInStep},
		"can't be computed, explained":          {Facts{Heard: now, Unexpected: "conflict", Reported: "b", Explained: true}, operatorapi.StateUnknown},
		"can't be computed, not explained":      {Facts{Heard: now, Unexpected: "conflict", Reported: "b"}, operatorapi.StateDrifted},
		"can't be computed, nothing run":        {Facts{Heard: now, Unexpected: "conflict"}, operatorapi.StateUnknown},
		"an agent that doesn't say what it has": {Facts{Heard: now, Expected: "a", Mounted: true}, operatorapi.StateUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			tc.facts.Now = now
			got, why := Judge(tc.facts)
			if got != tc.want || (why == "") != (got == operatorapi.StateInStep) {
				t.Errorf("%s, %q; want %s", got, why, tc.want)
			}
		})
	}
}
