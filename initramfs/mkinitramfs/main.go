// Command mkinitramfs writes the minimal initramfs of package initramfs:
//
//	mkinitramfs --agent dist/linux-amd64/powernode-agent --kernel-dir /lib/modules/RELEASE \
//	  --trust ./trust --ca /etc/ssl/certs/ca-certificates.crt --out initramfs.zst
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/powernode/powernode-agent/initramfs"
)

func main() {
	var s initramfs.Spec
	var out, modules string
	flag.StringVar(&s.Init, "agent", "", "the static powernode-agent that becomes /init")
	flag.StringVar(&s.KernelDir, "kernel-dir", "", "the kernel's modules, lib/modules/RELEASE, with depmod's index; without, there are none")
	flag.StringVar(&s.Trust, "trust", "", "the directory with trust.yaml and the keys that it names")
	flag.StringVar(&s.BootConfig, "boot-config", "", "a boot.yaml")
	flag.StringVar(&s.CA, "ca", "", "certificates of the authorities that registries and clouds are trusted by, in one PEM file")
	flag.StringVar(&modules, "module", "", "further kernel modules, separated by commas")
	flag.StringVar(&out, "out", "", "the file to write")
	flag.Parse()
	s.Modules = strings.FieldsFunc(modules, func(r rune) bool { return r == ',' || r == ' ' })
	if s.Init == "" || out == "" || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "mkinitramfs: --agent and --out are needed, and there are no arguments")
		os.Exit(1)
	}
	report, size, err := write(out, s)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mkinitramfs:", err)
		os.Exit(1)
	}
	fmt.Printf("%s: %.1f MB, with %d kernel modules (%.1f MB unpacked: agent %.1f, modules %.1f)\n",
		out, mb(size), len(report.Modules), mb(report.Size), mb(report.InitSize), mb(report.ModulesSize))
	if len(report.Missing) > 0 {
		fmt.Printf("not in this kernel: %s\n", strings.Join(report.Missing, " "))
	}
}

// write writes the initramfs beside its place and renames it, and returns its size.
func write(out string, s initramfs.Spec) (initramfs.Report, int64, error) {
	part := out + ".part"
	f, err := os.Create(part)
	if err != nil {
		return initramfs.Report{}, 0, err
	}
	defer os.Remove(part) //nolint:errcheck // it is renamed, or scratch
	defer f.Close()
	b := bufio.NewWriterSize(f, 1<<20)
	report, err := initramfs.Write(b, s)
	if err == nil {
		err = b.Flush()
	}
	if err != nil {
		return report, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return report, 0, err
	}
	// Its place may be /boot: a power cut must not leave the name with half a file.
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return report, 0, err
	}
	return report, info.Size(), os.Rename(part, out)
}

func mb(n int64) float64 { return float64(n) / 1e6 }
