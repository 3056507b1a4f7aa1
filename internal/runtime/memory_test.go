package runtime

import (
	"os"
	"regexp"
	"strconv"
	"testing"
)

func TestReadOnlyOf(t *testing.T) {
	for line, want := range map[string]uintptr{
		"00400000-00402000 r-xp 00000000 00:1a 1234                       /bin/agent\n": 0x2000,
		"00400000-00402000 r--p 00000000 00:1a 1234 /bin/agent":                         0x2000,
		"00400000-00402000 rw-p 00000000 00:1a 1234 /bin/agent":                         0,
		"00400000-00402000 r--s 00000000 00:1a 1234 /bin/agent":                         0,
		"00400000-00402000 r-xp 00000000 00:1a 1234 /bin/agent2":                        0,
		"00400000-00402000 r-xp 00000000 00:1a 1234":                                    0,
		"00402000-00400000 r-xp 00000000 00:1a 1234 /bin/agent":                         0,
		"": 0,
	} {
		if _, n, ok := readOnlyOf(line, "/bin/agent"); n != want || ok != (want > 0) {
			t.Errorf("%q: %d, %t", line, n, ok)
		}
	}
}

// TestUnmapProgram: the program goes on as before, with less of its file mapped.
func TestUnmapProgram(t *testing.T) {
	mapped := func() int {
		t.Helper()
		text, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, name := range []string{"RssFile", "RssShmem"} {
			m := regexp.MustCompile(`(?m)^` + name + `:\s+(\d+) kB`).FindSubmatch(text)
			if m == nil {
				t.Skipf("the kernel doesn't tell %s", name)
			}
			kb, err := strconv.Atoi(string(m[1]))
			if err != nil {
				t.Fatal(err)
			}
			n += kb
		}
		return n
	}
	before := mapped()
	unmapProgram()
	if now := mapped(); now >= before {
		t.Errorf("%d kB mapped, %d before", now, before)
	}
}
