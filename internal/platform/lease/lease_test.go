package lease

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func task(state nodeapi.TaskState) Task {
	t := Task{Kind: nodeapi.TaskSync, State: nodeapi.TaskPending, Attempt: 1}
	if state == nodeapi.TaskPending {
		return t
	}
	t = Grant(t, "L", noon)
	switch state {
	case nodeapi.TaskCancelling:
		t = Cancel(t)
	case nodeapi.TaskComplete:
		t, _, _ = Complete(t, "L", noon)
	case nodeapi.TaskFailed:
		t, _, _ = Fail(t, "L", nodeapi.FailFailed, "no", noon)
	case nodeapi.TaskCancelled:
		t, _, _ = Fail(Cancel(t), "L", nodeapi.FailCancelled, "stopped", noon)
	case nodeapi.TaskPending, nodeapi.TaskLeased:
	}
	return t
}

var states = []nodeapi.TaskState{
	nodeapi.TaskPending, nodeapi.TaskLeased, nodeapi.TaskCancelling, nodeapi.TaskComplete, nodeapi.TaskFailed, nodeapi.TaskCancelled,
}

// TestSteps has every step from every state.
func TestSteps(t *testing.T) {
	late := noon.Add(Life)
	step := func(next Task, again bool, err error) (string, error) {
		text := string(next.State)
		if again {
			text += " again"
		}
		return text, err
	}
	for name, c := range map[string]struct {
		do   func(Task) (string, error)
		want [6]string // by states; "" is ErrLost
	}{
		"grant":            {func(t Task) (string, error) { return step(Grant(t, "M", noon), false, nil) }, [6]string{"leased", "leased", "cancelling", "complete", "failed", "cancelled"}},
		"renew":            {func(t Task) (string, error) { next, err := Renew(t, "L", noon); return step(next, false, err) }, [6]string{"", "leased", "cancelling"}},
		"renew by another": {func(t Task) (string, error) { next, err := Renew(t, "M", noon); return step(next, false, err) }, [6]string{}},
		"renew by none":    {func(t Task) (string, error) { next, err := Renew(t, "", noon); return step(next, false, err) }, [6]string{}},
		"renew too late":   {func(t Task) (string, error) { next, err := Renew(t, "L", late); return step(next, false, err) }, [6]string{}},
		"complete":         {func(t Task) (string, error) { return step(Complete(t, "L", noon)) }, [6]string{"", "complete", "complete", "complete again"}},
		"by another":       {func(t Task) (string, error) { return step(Complete(t, "M", noon)) }, [6]string{}},
		"by none":          {func(t Task) (string, error) { return step(Complete(t, "", noon)) }, [6]string{}},
		"too late":         {func(t Task) (string, error) { return step(Complete(t, "L", late)) }, [6]string{"", "", "", "complete again"}},
		"fail": {
			func(t Task) (string, error) { return step(Fail(t, "L", nodeapi.FailFailed, "x", noon)) },
			[6]string{"", "failed", "failed", "", "failed again", "cancelled again"},
		},
		"fail, cancelled": {
			func(t Task) (string, error) { return step(Fail(t, "L", nodeapi.FailCancelled, "x", noon)) },
			[6]string{"", "failed", "cancelled", "", "failed again", "cancelled again"},
		},
		"fail by another": {func(t Task) (string, error) { return step(Fail(t, "M", nodeapi.FailFailed, "x", noon)) }, [6]string{}},
		"fail too late":   {func(t Task) (string, error) { return step(Fail(t, "L", nodeapi.FailFailed, "x", late)) }, [6]string{"", "", "", "", "failed again", "cancelled again"}},
		"cancel":          {func(t Task) (string, error) { return step(Cancel(t), false, nil) }, [6]string{"cancelled", "cancelling", "cancelling", "complete", "failed", "cancelled"}},
		"settle":          {func(t Task) (string, error) { return step(Settle(t, late), false, nil) }, [6]string{"pending", "pending", "cancelled", "complete", "failed", "cancelled"}},
		"settle early":    {func(t Task) (string, error) { return step(Settle(t, late.Add(-1)), false, nil) }, [6]string{"pending", "leased", "cancelling", "complete", "failed", "cancelled"}},
		"take back":       {func(t Task) (string, error) { return step(TakeBack(t), false, nil) }, [6]string{"pending", "pending", "cancelled", "complete", "failed", "cancelled"}},
	} {
		for i, state := range states {
			got, err := c.do(task(state))
			if want := c.want[i]; (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrLost) || err == nil && got != want {
				t.Errorf("%s of a task that is %s: %s, %v; want %q", name, state, got, err, want)
			}
		}
	}
}

// TestUntil: what waits for too long is given up, and nothing else.
func TestUntil(t *testing.T) {
	until := noon.Add(time.Hour)
	for _, state := range states {
		a := task(state)
		a.Expires, a.Until = until.Add(1), until
		if !held(a.State) {
			a.Expires = time.Time{}
		}
		if got := Settle(a, until.Add(-1)); got != a {
			t.Errorf("early: %+v", got)
		}
		got := Settle(a, until)
		switch {
		case state != nodeapi.TaskPending && got != a:
			t.Errorf("%s: %+v", state, got)
		case state == nodeapi.TaskPending && (got.State != nodeapi.TaskFailed || got.Code != nodeapi.FailExpired || strings.Contains(got.Error, "may have been done")):
			t.Errorf("%+v", got)
		}
		a.Until = time.Time{}
		if got := Settle(a, until); got != a {
			t.Errorf("without an end: %+v", got)
		}
	}
	// With the lease's end, and what was begun says so.
	begun, err := Renew(task(nodeapi.TaskLeased), "L", noon)
	if err != nil {
		t.Fatal(err)
	}
	begun.Until = noon.Add(time.Second)
	if got := Settle(begun, noon.Add(Life-1)); got != begun {
		t.Errorf("%+v", got)
	}
	if got := Settle(begun, noon.Add(Life)); got.Code != nodeapi.FailExpired || got.Lease != "" || !strings.Contains(got.Error, "may have been done") {
		t.Errorf("%+v", got)
	}
	// A node that lost the lease comes too late.
	after, granted := HandOut([]Task{begun}, []string{}, 9, noon.Add(time.Second), func() string { return "M" })
	if len(granted) != 0 || after[0].Code != nodeapi.FailExpired {
		t.Errorf("%+v", after)
	}
	cancelling := Cancel(begun)
	if got := Settle(cancelling, noon.Add(Life)); got.State != nodeapi.TaskCancelled {
		t.Errorf("%+v", got)
	}
}

// TestAttempts: only what was begun is an attempt, and there are so many of them.
func TestAttempts(t *testing.T) {
	now := noon
	a := task(nodeapi.TaskPending)
	for range 20 {
		a = Settle(Grant(a, "L", now), now.Add(Life))
	}
	if a.Attempt != 1 || a.Grants != 20 || a.State != nodeapi.TaskPending {
		t.Fatalf("%+v", a)
	}
	for i := range nodeapi.MaxAttempts {
		if a.State != nodeapi.TaskPending || a.Attempt != i+1 {
			t.Fatalf("attempt %d: %+v", i+1, a)
		}
		renewed, err := Renew(Grant(a, "L", now), "L", now.Add(Life-1))
		if err != nil {
			t.Fatal(err)
		}
		if got := Settle(renewed, now.Add(Life)); got.State != nodeapi.TaskLeased {
			t.Fatalf("a renewed lease: %+v", got)
		}
		a = TakeBack(renewed)
	}
	if a.State != nodeapi.TaskFailed || a.Code != nodeapi.FailAttempts || a.Attempt != nodeapi.MaxAttempts || a.Error == "" || a.Lease != "" {
		t.Errorf("%+v", a)
	}
	b := task(nodeapi.TaskPending)
	for b.State == nodeapi.TaskPending {
		b = TakeBack(Grant(b, "L", now))
	}
	if b.State != nodeapi.TaskFailed || b.Grants != MaxGrants || b.Attempt != 1 {
		t.Errorf("%+v", b)
	}
	// What was being cancelled isn't begun again.
	c, err := Renew(task(nodeapi.TaskCancelling), "L", noon)
	if err != nil {
		t.Fatal(err)
	}
	if c = TakeBack(c); c.State != nodeapi.TaskCancelled || !strings.Contains(c.Error, "some of it may have been done") {
		t.Errorf("%+v", c)
	}
}

func TestNext(t *testing.T) {
	of := func(kind nodeapi.TaskKind, state nodeapi.TaskState) Task {
		a := task(state)
		a.Kind = kind
		return a
	}
	const pending, leased, cancelling, complete = nodeapi.TaskPending, nodeapi.TaskLeased, nodeapi.TaskCancelling, nodeapi.TaskComplete
	const root, beside = nodeapi.TaskSync, nodeapi.TaskIntrospect
	for name, c := range map[string]struct {
		tasks []Task
		most  int
		want  []int
	}{
		"none":                 {nil, 3, nil},
		"one":                  {[]Task{of(root, pending)}, 3, []int{0}},
		"the first of a class": {[]Task{of(root, pending), of(root, pending), of("exec", pending)}, 3, []int{0}},
		"beside":               {[]Task{of(root, leased), of(beside, pending), of(root, pending), of(beside, pending)}, 3, []int{1, 3}},
		"being cancelled":      {[]Task{of(root, cancelling), of(root, pending)}, 3, nil},
		"after one that ended": {[]Task{of(root, complete), of(root, pending)}, 3, []int{1}},
		"an unknown kind":      {[]Task{of("exec", leased), of(root, pending)}, 3, nil},
		"in order":             {[]Task{of(beside, pending), of(root, pending), of(beside, pending)}, 2, []int{0, 1}},
		// The second is leased, as after a change of what the classes are: still only one.
		"one later":      {[]Task{of(beside, leased), of(root, leased), of(root, pending)}, 3, nil},
		"nothing wanted": {[]Task{of(root, pending)}, 0, nil},
	} {
		if got := Next(c.tasks, c.most); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	later := of(root, leased)
	later.Expires = noon.Add(2 * Life)
	if at, some := Wake([]Task{of(root, pending), later, of(beside, cancelling)}); !some || !at.Equal(noon.Add(Life)) {
		t.Error(at, some)
	}
	if _, some := Wake([]Task{of(root, pending), of(root, complete)}); some {
		t.Error("no lease is in force")
	}
}

func TestHandOut(t *testing.T) {
	ids := 0
	newID := func() string { ids++; return fmt.Sprint("new", ids) }
	pending, leased := task(nodeapi.TaskPending), task(nodeapi.TaskLeased)
	for name, c := range map[string]struct {
		tasks   []Task
		holding []string
		now     time.Time
		granted []int
		leases  []string
	}{
		"nothing said":    {[]Task{leased, pending}, nil, noon, nil, []string{"L", ""}},
		"held":            {[]Task{leased, pending}, []string{"x", "L"}, noon, nil, []string{"L", ""}},
		"lost":            {[]Task{leased, pending}, []string{}, noon, []int{0}, []string{"new1", ""}},
		"expired":         {[]Task{leased, pending}, []string{"L"}, noon.Add(Life), []int{0}, []string{"new1", ""}},
		"lost, cancelled": {[]Task{task(nodeapi.TaskCancelling), pending}, []string{}, noon, []int{1}, []string{"", "new1"}},
	} {
		ids = 0
		before := slices.Clone(c.tasks)
		after, granted := HandOut(c.tasks, c.holding, 2, c.now, newID)
		leases := make([]string, len(after))
		for i, a := range after {
			leases[i] = a.Lease
		}
		if !slices.Equal(granted, c.granted) || !slices.Equal(leases, c.leases) || !slices.Equal(c.tasks, before) {
			t.Errorf("%s: %v %q", name, granted, leases)
		}
	}
}

func TestOutput(t *testing.T) {
	o := Append(Output{}, 0, "abc")
	for _, c := range []struct {
		offset int64
		chunk  string
	}{{0, "abc"}, {0, ""}, {2, "c"}, {0, "ab"}, {99, ""}} {
		if got := Append(o, c.offset, c.chunk); got != o {
			t.Errorf("%d %q again: %+v", c.offset, c.chunk, got)
		}
	}
	if diff := cmp.Diff(Output{Text: "abcd", End: 4}, Append(o, 1, "bcd")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Output{Text: "abc\n[7 bytes were left out]\nx", End: 11}, Append(o, 10, "x")); diff != "" {
		t.Error(diff)
	}
	if got := Append(Output{}, 0, "a\x1b\r\x00\u202eé\xff").Text; got != "a??????é?" {
		t.Errorf("%q", got)
	}
	if diff := cmp.Diff(Output{Text: "abc\n[attempt 2]\nx", End: 1}, Append(Again(o, 2), 0, "x")); diff != "" {
		t.Error(diff)
	}
	if got := Again(Output{}, 2); got != (Output{}) {
		t.Errorf("%+v", got)
	}
	long := Append(Output{}, 0, strings.Repeat("é", nodeapi.MaxTaskOutput/2))
	long = Append(long, long.End, "x")
	if len(long.Text) != nodeapi.MaxTaskOutput-1 || long.Dropped != 2 || !strings.HasSuffix(long.Text, "éx") || !strings.HasPrefix(long.Text, "é") {
		t.Errorf("%d bytes, %d dropped", len(long.Text), long.Dropped)
	}
}

func FuzzAppend(f *testing.F) {
	f.Add("abc", int64(1), "bcd\x00")
	f.Fuzz(func(t *testing.T, first string, offset int64, second string) {
		if offset < 0 || offset > 1<<40 {
			return
		}
		o := Append(Append(Output{}, 0, first), offset, second)
		if len(o.Text) > nodeapi.MaxTaskOutput || o.End < int64(len(first)) || strings.ContainsRune(o.Text, 0) {
			t.Fatalf("%+v", o)
		}
		if again := Append(o, offset, second); again != o {
			t.Fatalf("%+v, and again %+v", o, again)
		}
	})
}
