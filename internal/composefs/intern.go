package composefs

import "bytes"

// interner keeps the names and values of attributes that have been seen, so that nodes share
// them: a tree has few that differ, and every node has some.
type interner struct {
	names  map[string]string
	values map[string][]byte
}

// internLimit bounds how many of either are kept.
const internLimit = 1 << 14

func newInterner() interner {
	return interner{names: make(map[string]string), values: make(map[string][]byte)}
}

// name returns b as a string.
func (in *interner) name(b []byte) string {
	if s, ok := in.names[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(in.names) < internLimit {
		in.names[s] = s
	}
	return s
}

// value returns a copy of b, which other nodes may share.
func (in *interner) value(b []byte) []byte {
	if v, ok := in.values[string(b)]; ok {
		return v
	}
	v := bytes.Clone(b)
	if len(in.values) < internLimit {
		in.values[string(v)] = v
	}
	return v
}
