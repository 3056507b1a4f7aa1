// Command live measures changes of a running root, with real stores, signed modules and mounts, and by the code that the
// commands attach and detach run: bench/live.sh has it run in a mount namespace of its own, as root.
//
//	live change DIR FILES MODULES RUNS    attaches and detaches a module of 500 files
//	live lookup DIR FILES MODULES RUNS    stat and find on the composed root and on a stack of a layer for each module
//	live header change|lookup             the heading of the lines that these print
//
// A root of FILES files is made of MODULES modules. DIR holds the store, on a disk; what is there already is used again.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
	"strconv"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "live:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	headers := map[string]string{"change": changeHeader, "lookup": lookupHeader}
	if len(args) == 2 && args[0] == "header" {
		fmt.Println(headers[args[1]])
		return nil
	}
	var numbers [3]int
	if len(args) != 5 || headers[args[0]] == "" {
		return errors.New("usage: live change|lookup DIR FILES MODULES RUNS")
	}
	for i := range numbers {
		if numbers[i], err = strconv.Atoi(args[2+i]); err != nil || numbers[i] < 1 {
			return fmt.Errorf("%q is no number", args[2+i])
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to this namespace: %w", err)
	}
	n, err := newNode(ctx, args[1], numbers[0], numbers[1])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	if args[0] == "lookup" {
		return n.lookups(numbers[2])
	}
	stop, err := profile(os.Getenv("PROFILE"))
	if err != nil {
		return err
	}
	defer stop()
	return n.changes(ctx, numbers[2])
}

// profile writes a profile of the processor's time to a file, unless path is "".
func profile(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}, nil
}
