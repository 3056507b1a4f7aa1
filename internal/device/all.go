package device

// Partition types that boot partitions have: GUIDs of a GPT (Discoverable Partitions Specification), and
// the types of an MBR as 0xNN.
const (
	TypeESP     = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	TypeBoot    = "bc13c2ff-59e6-4262-a352-b275fd6f7172" // the extended boot loader partition
	TypeMBRBoot = "0xea"
	TypeMBRESP  = "0xef"
)

// Listed is a block device as All lists it.
type Listed struct {
	Path string // its node, such as /dev/vda2
	Name string // the kernel's name, such as vda2
	Size int64  // in bytes
	// Partition is its number, 0 for a whole disk. PartLabel and PartType are what the partition table
	// says of it: a name, "" for none, and one of the types above or another, in lower case.
	Partition           int
	PartLabel, PartType string
	// Removable reports that the device may be attached by anybody who comes by.
	Removable bool
	Superblock
}

// All lists the block devices that there are now, by name, without those that another device is made
// of and those that can't be read.
func All(o Options) ([]Listed, error) {
	blocks, err := o.blocks()
	if err != nil {
		return nil, err
	}
	list := make([]Listed, 0, len(blocks))
	for _, b := range blocks {
		super := b.probe()
		if b.superErr != nil {
			continue
		}
		o.readTable(b, true)
		list = append(list, Listed{
			Path: b.node, Name: b.name, Size: b.size, Partition: b.number, PartLabel: b.partName, PartType: b.partType,
			Removable: b.removable(), Superblock: super,
		})
	}
	return list, nil
}
