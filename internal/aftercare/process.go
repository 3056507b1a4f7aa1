package aftercare

// How a process uses a file.
const (
	AsProgram   = "program"   // it runs it
	AsMapped    = "mapped"    // it has it mapped: a library
	AsOpen      = "open"      // it has it open
	AsDirectory = "directory" // it works in it, or has it as its root directory
)

// Process is a process that uses files that differ from what their paths lead to: after the change that is planned, or
// now.
type Process struct {
	PID int `json:"pid"`
	// Name is the kernel's short name of it.
	Name string `json:"name"`
	// Unit is the unit of systemd that it belongs to; "" where it belongs to none.
	Unit string `json:"unit,omitempty"`
	// Uses are the files, programs first, at most usesMax of them, and More is how many others there are.
	Uses []Use `json:"uses"`
	More int   `json:"more,omitempty"`
}

// Use is one file that a process uses.
type Use struct {
	// Path is where the process found it.
	Path string `json:"path"`
	How  string `json:"how"`
}

// Bounds of a scan.
const (
	usesMax = 8
	// mapsMax bounds what is read of one process's maps, in bytes, and openMax how many descriptors are looked at.
	mapsMax = 4 << 20
	openMax = 4096
	// compareMax bounds the bytes that one scan compares.
	compareMax = 256 << 20
)

// add notes a use, each path once, the weightiest first.
func (p *Process) add(path, how string) {
	for _, u := range p.Uses {
		if u.Path == path {
			return
		}
	}
	if len(p.Uses) == usesMax {
		p.More++
		return
	}
	p.Uses = append(p.Uses, Use{path, how})
}
