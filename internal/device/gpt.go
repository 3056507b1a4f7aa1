package device

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf16"
)

// partition is an entry of a partition table.
type partition struct{ label, uuid, kind string }

// The limits of a GPT's entries: 128 of 128 bytes are usual.
const (
	gptEntriesMax = 1024
	gptEntrySize  = 4096
)

var errNoTable = errors.New("no partition table that it knows")

// readTable returns the partitions of a disk by their number, from its GPT, else from the four
// primary entries of its MBR. sector is the disk's logical sector size in bytes. The kernel read the
// same table to make the partitions, so the backup at the disk's end isn't asked.
func readTable(r io.ReaderAt, sector int64) (map[int]partition, error) {
	if sector < 512 || sector > 64<<10 {
		return nil, fmt.Errorf("a sector size of %d bytes", sector)
	}
	mbr := make([]byte, 512)
	if _, err := io.ReadFull(io.NewSectionReader(r, 0, 512), mbr); err != nil {
		return nil, fmt.Errorf("read the first sector: %w", err)
	}
	if mbr[510] != 0x55 || mbr[511] != 0xaa {
		return nil, errNoTable
	}
	header := make([]byte, 512)
	if _, err := io.ReadFull(io.NewSectionReader(r, sector, 512), header); err == nil && string(header[:8]) == "EFI PART" {
		return readGPT(r, sector, header)
	}
	signature := binary.LittleEndian.Uint32(mbr[440:])
	found := map[int]partition{}
	for i := range 4 {
		if entry := mbr[446+16*i:]; entry[4] != 0 && signature != 0 {
			found[i+1] = partition{uuid: fmt.Sprintf("%08x-%02d", signature, i+1), kind: fmt.Sprintf("0x%02x", entry[4])}
		}
	}
	return found, nil
}

// readGPT checks the header and the entries by their checksums (UEFI specification, 5.3.2).
func readGPT(r io.ReaderAt, sector int64, header []byte) (map[int]partition, error) {
	le32, le64 := binary.LittleEndian.Uint32, binary.LittleEndian.Uint64
	size := le32(header[12:])
	if size < 92 || size > 512 {
		return nil, fmt.Errorf("a GPT header of %d bytes", size)
	}
	plain := append([]byte{}, header[:size]...)
	copy(plain[16:20], make([]byte, 4))
	if crc32.ChecksumIEEE(plain) != le32(header[16:]) {
		return nil, errors.New("the GPT's header has a wrong checksum")
	}
	start, count, width := le64(header[72:]), le32(header[80:]), le32(header[84:])
	if count > gptEntriesMax || width < 128 || width > gptEntrySize || start > 1<<40 {
		return nil, fmt.Errorf("a GPT of %d entries of %d bytes at sector %d", count, width, start)
	}
	entries := make([]byte, int(count)*int(width))
	if _, err := io.ReadFull(io.NewSectionReader(r, int64(start)*sector, int64(len(entries))), entries); err != nil {
		return nil, fmt.Errorf("read the GPT's entries: %w", err)
	}
	if crc32.ChecksumIEEE(entries) != le32(header[88:]) {
		return nil, errors.New("the GPT's entries have a wrong checksum")
	}
	found := map[int]partition{}
	for i := range int(count) {
		e := entries[i*int(width):]
		if [16]byte(e[:16]) == [16]byte{} {
			continue
		}
		found[i+1] = partition{label: utf16Text(e[56:128]), uuid: guid(e[16:32]), kind: guid(e[:16])}
	}
	return found, nil
}

// guid writes a GUID, whose first three fields are little-endian.
func guid(b []byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}

func utf16Text(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return strings.ToValidUTF8(string(utf16.Decode(units)), "")
}
