package agentcli

import (
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/store"
)

func TestStatusTellsOfARunningGenerationWithoutARecord(t *testing.T) {
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	_, missing := st.Generation(7)
	for _, c := range []struct {
		name             string
		n                uint64
		said             []string
		check            bool
		reasons, remarks int
	}{
		{"by the way", 7, nil, false, 0, 1},
		{"when asked", 7, nil, true, 1, 0},
		{"once", 7, []string{missing.Error()}, true, 1, 0},
		{"nothing runs", 0, []string{"there is no current generation"}, true, 1, 0},
	} {
		d := statusDoc{Reasons: c.said}
		if err := d.damage(t.Context(), st, c.n, c.check); err != nil || len(d.Reasons) != c.reasons || len(d.Remarks) != c.remarks {
			t.Errorf("%s: %v, reasons %q, remarks %q", c.name, err, d.Reasons, d.Remarks)
		}
		if all := strings.Join(append(d.Reasons, d.Remarks...), ""); c.said == nil && !strings.Contains(all, "generation 7") {
			t.Errorf("%s: %q", c.name, all)
		}
	}
}
