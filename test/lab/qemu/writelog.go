package qemu

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/powernode/powernode-agent/test/lab"
)

// A write log is what QEMU's block driver blklogwrites keeps of a disk, in the format of Linux's dm-log-writes
// (Documentation/admin-guide/device-mapper/log-writes.rst): a block with the superblock, then for each write a block
// with an entry, and the data.
const (
	logMagic   = 0x6a736677736872
	logFlush   = 1
	logDiscard = 4
	logSector  = 512
)

// WriteLog is everything that a machine wrote to a disk and when it flushed it, up to the last flush.
type WriteLog struct {
	path    string
	entries []logEntry
}

type logEntry struct {
	sector, sectors, flags uint64
	// at is where its data is in the log.
	at int64
}

// LoggedDisk returns the flags of a machine whose only disk this is, and the log that is kept of it.
func LoggedDisk(t testing.TB, disk string) (flags []string, log string) {
	t.Helper()
	log = filepath.Join(lab.TempDir(t), "log")
	lab.Write(t, log, nil, 0o600)
	return []string{
		"-blockdev", "driver=file,filename=" + disk + ",node-name=file0", "-blockdev", "driver=file,filename=" + log + ",node-name=log0",
		"-blockdev", "driver=blklogwrites,file=file0,log=log0,node-name=disk0", "-device", "virtio-blk-pci,drive=disk0",
	}, log
}

// ReadLog reads a log, also while its machine runs.
func ReadLog(t testing.TB, path string) *WriteLog {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, logSector)
	if _, err := f.ReadAt(block, 0); err == io.EOF {
		return &WriteLog{path: path}
	} else if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	if le.Uint64(block) != logMagic || le.Uint64(block[8:]) != 1 || le.Uint32(block[24:]) != logSector {
		t.Fatalf("%s isn't a log of writes: %x", path, block[:28])
	}
	l, at := &WriteLog{path: path}, int64(logSector)
	for range le.Uint64(block[16:]) {
		if _, err := f.ReadAt(block, at); err != nil {
			t.Fatalf("entry %d of the log: %v", len(l.entries), err)
		}
		e := logEntry{le.Uint64(block), le.Uint64(block[8:]), le.Uint64(block[16:]), at + logSector}
		l.entries = append(l.entries, e)
		at += logSector
		if e.flags&logDiscard == 0 {
			at += int64(e.sectors) * logSector
		}
	}
	return l
}

// Len is the number of entries, of which Apply takes any.
func (l *WriteLog) Len() int { return len(l.entries) }

// Apply brings a disk that is as it was before the log began into a state that a power cut may leave about
// entry n: everything that was flushed by then is on it, and of what was written between that flush and the next
// one, what keep says. It returns how many writes were kept of all, and how many were lost.
func (l *WriteLog) Apply(t testing.TB, disk string, n int, keep func() bool) (kept, lost int) {
	t.Helper()
	log, err := os.Open(l.path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	flushed, next := l.between(n)
	for i, e := range l.entries[:next] {
		if !e.isWrite() {
			continue
		}
		if i > flushed && !keep() {
			lost++
			continue
		}
		kept++
		to := io.NewOffsetWriter(f, int64(e.sector)*logSector)
		if _, err := io.Copy(to, io.NewSectionReader(log, e.at, int64(e.sectors)*logSector)); err != nil {
			t.Fatal(err)
		}
	}
	return kept, lost
}

func (e logEntry) isWrite() bool { return e.sectors > 0 && e.flags&logDiscard == 0 }

// between returns the flushes about entry n that have a write between them, or if there are none later, the
// last flush and the end.
func (l *WriteLog) between(n int) (flushed, next int) {
	flushed, writes := -1, 0
	for i, e := range l.entries {
		if e.isWrite() {
			writes++
		}
		if e.flags&logFlush == 0 {
			continue
		}
		if i >= n && writes > 0 {
			return flushed, i
		}
		flushed, writes = i, 0
	}
	return flushed, len(l.entries)
}
