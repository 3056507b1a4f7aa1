package boot

import "context"

func (b *boot) findPersist(context.Context) (string, error) {
	b.persistDir = b.config.Persist
	if b.persistDir == "" {
		b.persistDir = PersistInRoot
	}
	b.persist = Persist{Kind: "directory"}
	return b.persistDir, nil
}

// persistWords says what persist is, for people.
func (b *boot) persistWords() string { return b.persistDir }
