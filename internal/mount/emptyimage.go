package mount

import "encoding/binary"

// emptyImage returns the smallest EROFS image that mounts: one block of 4096 bytes with a
// superblock and an empty root directory, to probe with. Layout: struct erofs_super_block at byte
// 1024, struct erofs_inode_compact (32 bytes) in slot number nid, and behind it, inline, the
// directory's entries (fs/erofs/erofs_fs.h).
func emptyImage() []byte {
	const (
		superblock = 1024
		nid        = 40 // slots are 32 bytes from the start of the block: byte 1280
		inode      = nid * 32
		entries    = inode + 32
		directory  = 2
		dirent     = 12
	)
	le := binary.LittleEndian
	image := make([]byte, 4096)
	le.PutUint32(image[superblock:], 0xE0F5E1E2) // magic
	image[superblock+12] = 12                    // blkszbits: 4096
	le.PutUint16(image[superblock+14:], nid)     // root_nid
	le.PutUint64(image[superblock+16:], 1)       // inos
	le.PutUint32(image[superblock+36:], 1)       // blocks
	le.PutUint16(image[inode:], 2<<1)            // i_format: compact, EROFS_INODE_FLAT_INLINE
	le.PutUint16(image[inode+4:], 0o040755)      // i_mode
	le.PutUint16(image[inode+6:], 2)             // i_nlink
	le.PutUint32(image[inode+8:], 2*dirent+3)    // i_size: two entries and the names "." and ".."
	for i, name := range []string{".", ".."} {
		entry := image[entries+dirent*i:]
		le.PutUint64(entry, nid)
		le.PutUint16(entry[8:], uint16(2*dirent+i)) // nameoff: behind the entries; "." is one byte long
		entry[10] = directory
		copy(image[entries+2*dirent+i:], name)
	}
	return image
}
