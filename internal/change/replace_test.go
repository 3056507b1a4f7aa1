package change

import (
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/delta"
	"github.com/powernode/powernode-agent/internal/fault"
)

// TestReplacingNeedsALiveChange: where local changes can't be replaced as it was asked for, nothing is changed, and a dry run says so.
func TestReplacingNeedsALiveChange(t *testing.T) {
	w := newWorld(t)
	w.module("base", "1", map[string]string{"usr/a": long("a")})
	w.boot()
	w.module("base", "2", map[string]string{"usr/a": long("b")})
	r := Request{Kind: Update, LocalChanges: ReplaceLocal, DryRun: true}
	if u := w.update(r); u.Outcome != WouldStage || !strings.Contains(strings.Join(u.Remarks, "\n"), "would be refused: local changes can be replaced") {
		t.Errorf("a dry run: %+v", u)
	}
	r.DryRun = false
	before := w.pointer("staged")
	if u, err := w.staging(r); fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "in the running system only") || w.pointer("staged") != before {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestWhatIsReplaced: a directory isn't taken out because of its mode, with all that is in it.
func TestWhatIsReplaced(t *testing.T) {
	f := Findings{Conflicts: []delta.Conflict{
		{Path: "/etc", Local: delta.Directory, Below: delta.Attributes},
		{Path: "/etc/file", Local: delta.File, Below: delta.Content},
		{Path: "/srv", Local: delta.Whiteout, Below: delta.Content},
		{Path: "/opt/dir", Local: delta.Directory, Below: delta.Type},
		{Path: "/opt/gone", Local: delta.Whiteout, Below: delta.Content},
	}}
	if got := f.replaced(Step{Replace: true}); strings.Join(got, " ") != "/etc/file /opt/dir /opt/gone" {
		t.Error(got)
	}
	if got := f.replaced(Step{}); got != nil {
		t.Error(got)
	}
	w := &work{request: Request{LocalChanges: ReplaceLocal}, c: &Changer{Config: Config{System: &fakeSystem{}}}}
	p := &Plan{Way: Boot, Reasons: []string{"it was asked for"}, Conflicts: []LocalConflict{{Path: "/etc"}}}
	if err := w.cantReplace(p); err != nil {
		t.Errorf("nothing is to be replaced: %v", err)
	}
	p.Conflicts = append(p.Conflicts, LocalConflict{Path: "/etc/file", Replaced: true})
	if err := w.cantReplace(p); fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "/etc/file") || !strings.Contains(err.Error(), "it was asked for") {
		t.Error(err)
	}
	p.Way = Live
	if err := w.cantReplace(p); err != nil {
		t.Error(err)
	}
}
