// Command fsverity prints the fs-verity digest of each file it is given and how long it took, for
// bench/fsverity.sh. -p limits the cores it uses.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/powernode/powernode-agent/internal/fsverity"
)

func main() {
	cores := flag.Int("p", runtime.NumCPU(), "cores to use")
	flag.Parse()
	runtime.GOMAXPROCS(*cores)
	for _, name := range flag.Args() {
		if err := sum(name); err != nil {
			fmt.Fprintln(os.Stderr, "fsverity:", err)
			os.Exit(1)
		}
	}
}

func sum(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	start := time.Now()
	digest, size, err := fsverity.SumFile(f)
	if err != nil {
		return err
	}
	took := time.Since(start)
	fmt.Printf("%s %d %.3f %.0f\n", digest, size, took.Seconds(), float64(size)/1e6/took.Seconds())
	return nil
}
