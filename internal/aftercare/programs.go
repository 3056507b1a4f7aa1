package aftercare

import (
	"path"
	"strings"

	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/tree"
)

// programDirs are where the programs lie.
var programDirs = []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// The programs that Back runs again.
const (
	linkerProgram = "ldconfig"
	moduleProgram = "depmod"
)

// program finds a program in the new root. A symlink to it isn't followed: kmod is depmod by that name.
func (c *change) program(name string) (string, bool) {
	for _, dir := range programDirs {
		at := path.Join(dir, name)
		if _, n := resolve(c.To, at); n != nil && n.Kind == tree.Regular && n.Mode&0o111 != 0 {
			return at, true
		}
	}
	return "", false
}

// run adds a program to the plan; where the new root hasn't it, without says what doesn't happen.
func (c *change) run(p *Plan, name, without string, why reasons, args ...string) {
	at, ok := c.program(name)
	if !ok {
		p.Remarks = append(p.Remarks, "the root has no "+name+": "+without)
		return
	}
	p.Run = append(p.Run, Program{Name: name, Path: at, Args: args, Because: why.list()})
}

// configDirs are where systemd's programs look for their files, the one that wins first (tmpfiles.d(5), sysusers.d(5)).
var configDirs = []string{"/etc", "/run", "/usr/local/lib", "/usr/lib"}

// configured adds a program that is to carry out the files of a directory that came or changed, those alone: what
// the others say was done before, and somebody may have changed it since. It gets their names without the directory, so
// that it takes the one that wins. What a file that goes away has brought stays.
func (c *change) configured(p *Plan, program, dir string, args ...string) {
	var why reasons
	seen := make(map[string]bool)
	for _, e := range c.entries {
		if e.Kind == difference.Removed || e.To == nil || e.To.Kind == tree.Directory {
			continue
		}
		for _, base := range configDirs {
			name, ok := below(e.Path, base+"/"+dir)
			if !ok || strings.Contains(name, "/") || !strings.HasSuffix(name, ".conf") || seen[name] {
				continue
			}
			seen[name] = true
			why.add("%s is %s", e.Path, e.Kind)
			args = append(args, name)
		}
	}
	if len(seen) > 0 {
		c.run(p, program, "what "+strings.Join(why.list(), ", ")+" for isn't done", why, args...)
	}
}
