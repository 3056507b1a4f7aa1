// Command composefs makes a dump of a tree to measure with, and writes the image of a dump as
// mkcomposefs --from-file does. It is what bench/composefs-writer.sh times.
//
//	composefs dump ENTRIES >DUMP
//	composefs image DUMP IMAGE
package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/powernode/powernode-agent/internal/composefs"
	"github.com/powernode/powernode-agent/internal/composefs/composefstest"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "composefs:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "dump":
		entries, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return composefs.WriteDump(os.Stdout, composefstest.Tree(entries))
	case len(args) == 3 && args[0] == "image":
		return image(args[1], args[2])
	}
	return fmt.Errorf("usage: composefs dump ENTRIES | composefs image DUMP IMAGE")
}

func image(dump, path string) error {
	in, err := os.Open(dump)
	if err != nil {
		return err
	}
	defer in.Close()
	root, err := composefs.ReadDump(in, composefs.Limits{})
	if err != nil {
		return err
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := composefs.Write(out, root, composefs.Default); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
