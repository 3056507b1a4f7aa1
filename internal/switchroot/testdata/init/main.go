// Command init is the static program that the tests run as the init of a new root. It prints, as
// JSON, what it finds there.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	report := map[string]string{"pid": fmt.Sprint(os.Getpid())}
	for _, path := range os.Args[1:] {
		report[path] = look(path)
	}
	for _, path := range []string{"/dev/null", "/dev/shm/x", "/run/x", "/tmp/x"} {
		report["write "+path] = fmt.Sprint(os.WriteFile(path, []byte("x"), 0o600))
	}
	report["write /sys/kernel/x"] = fmt.Sprint(os.WriteFile("/sys/kernel/mm/transparent_hugepage/enabled", nil, 0o600))
	report["cwd"], _ = os.Getwd()
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		os.Exit(1)
	}
}

// look returns a file's content, or the names in a directory.
func look(path string) string {
	if content, err := os.ReadFile(path); err == nil {
		return string(content)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "error: " + err.Error()
	}
	names := ""
	for _, e := range entries {
		names += e.Name() + " "
	}
	return names
}
