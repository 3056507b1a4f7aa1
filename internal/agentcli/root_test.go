package agentcli

import (
	"slices"
	"testing"
)

func TestArgumentsOfTheFirstProgramOfAnInitramfs(t *testing.T) {
	for _, c := range []struct {
		name string
		pid  int
		argv []string
		want []string
	}{
		{"the kernel's /init", 1, []string{"/init"}, []string{"boot"}},
		{"with the kernel's leftovers", 1, []string{"/init", "splash", "status"}, []string{"boot"}},
		{"first process of a namespace", 1, []string{"/bin/powernode-agent", "boot", "--namespace"}, []string{"boot", "--namespace"}},
		{"called init by somebody", 77, []string{"init", "status"}, []string{"status"}},
		{"ordinary", 77, []string{"powernode-agent", "status"}, []string{"status"}},
		{"no name", 77, nil, nil},
	} {
		if got := Arguments(c.pid, c.argv); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
