package aftercare

import "github.com/powernode/powernode-agent/internal/tree"

// AtBoot returns the programs that have to run whenever a root image is made a root, before its services start: what
// systemd doesn't do itself at each start. read is as Input.Read, kernel as Input.Kernel. A root without the program gets by without.
func AtBoot(root *tree.Node, kernel string, read func(*tree.Node) ([]byte, error)) []Program {
	c := &change{Input: Input{To: root, Kernel: kernel, Read: read}}
	var p Plan
	if c.needsCache() {
		c.run(&p, linkerProgram, "", reasons{"libraries in directories of " + linkerConfig + " are found through a cache only, and the image brings none"})
	}
	if c.needsIndex() {
		c.run(&p, moduleProgram, "", reasons{"the image brings no index that lists the modules of this kernel"}, kernel)
	}
	return p.Run
}
