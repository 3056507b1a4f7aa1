package signature

// Level is an integrity level: what guards a node's files once they are mounted.
type Level string

// The levels, weakest first. There is nothing weaker.
const (
	// LevelChecked means that everything was hashed before it was mounted.
	LevelChecked Level = "checked"
	// LevelEnforced means that the kernel checks each read.
	LevelEnforced Level = "enforced"
)

// Meets reports whether a node at level l satisfies a demand for at least the level required. An
// unknown level meets nothing and is met by nothing.
func (l Level) Meets(required Level) bool {
	have, need := l.rank(), required.rank()
	return have > 0 && need > 0 && have >= need
}

func (l Level) rank() int {
	switch l {
	case LevelChecked:
		return 1
	case LevelEnforced:
		return 2
	default:
		return 0
	}
}
