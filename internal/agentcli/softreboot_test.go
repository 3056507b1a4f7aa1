package agentcli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/store"
)

// TestSoftRebootProves: a root is never gone on with because a record names it, however good its trial looks.
func TestSoftRebootProves(t *testing.T) {
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	image := []byte("a root that no modules make")
	n, err := st.PutGeneration(store.Generation{RootDigest: fsverity.SumBytes(image)}, bytes.NewReader(image))
	if err == nil {
		err = st.Stage(n)
	}
	if err != nil {
		t.Fatal(err)
	}
	if c, err := candidateOf(st, 2, n); err != nil || c.Generation != n || c.Attempts != 2 || c.Begin(time.Now(), "").Limit != 2 {
		t.Fatalf("it isn't staged with the tries that the settings have: %+v, %v", c, err)
	}
	if _, _, err := provenCandidate(t.Context(), st, boot.Trust{}, boot.Facts{Level: mount.Checked}, n); err == nil || !strings.Contains(err.Error(), "compose") {
		t.Errorf("%v", err)
	}
}
