package event

import (
	"fmt"
	"strconv"
	"strings"
)

// item is what an event's name on the disk tells: its place, its rank, its size and the beginning of its ID, by which it
// is never taken for another that was in its place before.
type item struct {
	seq  uint64
	rank rank
	size int64
	id   string
}

const (
	itemSuffix = ".json"
	idLength   = 8
)

// name returns the file's name; names sort like sequence numbers.
func (it item) name() string {
	return fmt.Sprintf("%016x-%d-%d-%s%s", it.seq, it.rank, it.size, it.id, itemSuffix)
}

// parseName reads a name.
func parseName(name string) (item, bool) {
	parts := strings.Split(strings.TrimSuffix(name, itemSuffix), "-")
	if len(parts) != 4 {
		return item{}, false
	}
	seq, err1 := strconv.ParseUint(parts[0], 16, 63)
	r, err2 := strconv.ParseInt(parts[1], 10, 8)
	size, err3 := strconv.ParseInt(parts[2], 10, 32)
	it := item{seq, rank(r), size, parts[3]}
	ok := err1 == nil && err2 == nil && err3 == nil && r >= 0 && rank(r) < ranks && size >= 0 && len(it.id) == idLength && isWord(it.id, idLength)
	return it, ok && it.name() == name
}

// room returns which of the items go so that another fits: the least important, and of these the oldest; and whether it
// fits at all.
func room(items []item, another item, count int, bytes int64) (victims []item, fits bool) {
	n, size := len(items)+1, another.size
	for _, it := range items {
		size += it.size
	}
	for r := rankInfo; r < ranks; r++ {
		for _, it := range items {
			if n <= count && size <= bytes {
				return victims, true
			}
			if it.rank == r && r <= another.rank {
				victims = append(victims, it)
				n, size = n-1, size-it.size
			}
		}
	}
	if n <= count && size <= bytes {
		return victims, true
	}
	// What is more important stays, and nothing goes for nothing.
	return nil, false
}
