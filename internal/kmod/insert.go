package kmod

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
)

// moduleMax bounds a module that is unpacked here; the largest of a distribution has some 30 MiB
// with its debug sections.
const moduleMax = 256 << 20

// errMissing says that a module's file isn't in the directory. It isn't fs.ErrNotExist, which the
// kernel's answer to an unknown symbol is, too.
var errMissing = errors.New("the file is missing")

// insert puts one module into the kernel and notes it in done. Its dependencies are there already.
func (l *Loader) insert(m module, done *Loaded) error {
	if l.live[m.name] || l.blocked(m.name) {
		return nil
	}
	f, err := l.root.Open(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Broken, fault.General, "put the file into the initramfs, or boot a kernel that has the module built in",
			"%s: %w", path.Join(l.Dir, m.path), errMissing)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	put := l.Insert
	if put == nil {
		put = finit
	}
	switch err := putFile(put, f, path.Ext(m.path)); {
	case err == nil:
		l.live[m.name] = true
		done.Modules = append(done.Modules, m.name)
		return nil
	case errors.Is(err, unix.EEXIST):
		l.live[m.name] = true
		return nil
	case errors.Is(err, unix.ENODEV):
		// crc32c-intel on a processor without SSE 4.2, for one.
		done.NoHW = append(done.NoHW, m.name)
		return nil
	default:
		return refused(err)
	}
}

// putFile gives a module to the kernel as it is; the kernel unpacks it (MODULE_DECOMPRESS). One that
// can't, or that knows another compression only, answers EINVAL or EOPNOTSUPP: then it is unpacked
// here.
func putFile(put func(*os.File, int) error, f *os.File, ext string) error {
	if ext == ".ko" {
		return put(f, 0)
	}
	err := put(f, unix.MODULE_INIT_COMPRESSED_FILE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	plain, unpackErr := unpack(f, ext)
	if unpackErr != nil {
		return fmt.Errorf("%w (the kernel can't unpack it, and neither can this program: %w)", err, unpackErr)
	}
	defer plain.Close()
	return put(plain, 0)
}

// unpack returns the module in f, unpacked into a file in memory.
func unpack(f *os.File, ext string) (*os.File, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	var plain io.Reader
	switch ext {
	case ".gz":
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, err
		}
		plain = z
	case ".zst":
		z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(moduleMax))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		plain = z
	default:
		return nil, fmt.Errorf("%q is no compression that it knows", ext)
	}
	var content bytes.Buffer
	n, err := io.Copy(&content, io.LimitReader(plain, moduleMax+1))
	if err != nil {
		return nil, err
	}
	if n > moduleMax {
		return nil, fmt.Errorf("it has more than %d MiB", moduleMax>>20)
	}
	return memfile(content.Bytes())
}

// memfile returns a file in memory, open for reading only: the kernel takes no module from a file
// that somebody may write to (ETXTBSY).
func memfile(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("module", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}
	w := os.NewFile(uintptr(fd), "module")
	defer w.Close()
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// finit is finit_module(2) without parameters.
func finit(f *os.File, flags int) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno error
	if err := conn.Control(func(fd uintptr) { errno = unix.FinitModule(int(fd), "", flags) }); err != nil {
		return err
	}
	return errno
}

// refused gives an errno of finit_module(2) its remedy.
func refused(err error) error {
	hint := "see the kernel's log for the reason"
	switch {
	case errors.Is(err, unix.EKEYREJECTED), errors.Is(err, unix.ENOKEY), errors.Is(err, unix.EBADMSG):
		hint = "use a module that is signed with a key of this kernel"
	case errors.Is(err, unix.ENOEXEC):
		hint = "use the modules that were built with this kernel"
	case errors.Is(err, unix.ENOENT):
		hint = "run depmod over the initramfs's modules: a symbol that it needs isn't there"
	case errors.Is(err, unix.EPERM):
		hint = "run it as root, with modules_disabled and lockdown off or the modules signed"
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		hint = "put the module into the initramfs uncompressed"
	}
	return fault.New(fault.Broken, fault.General, hint, "the kernel refused it: %w", err)
}
