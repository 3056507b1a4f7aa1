package signature

// Level is an integrity level: what guards a node's files once they are mounted.
type Level string

// The levels that a policy may demand, weakest first. There is nothing weaker.
const (
	// LevelChecked means that everything was hashed before it was mounted.
	LevelChecked Level = "checked"
	// LevelEnforced means that the kernel checks each read.
	LevelEnforced Level = "enforced"
)

// known reports whether l is one of the levels.
func (l Level) known() bool { return l == LevelChecked || l == LevelEnforced }
