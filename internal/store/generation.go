package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

// Generation is one state of the node's operating system: immutable once it was put.
type Generation struct {
	Number     uint64             `json:"number"` // from 1; given by PutGeneration
	Created    time.Time          `json:"created"`
	Modules    []GenerationModule `json:"modules"`
	RootDigest fsverity.Digest    `json:"root_digest"`
	Cause      string             `json:"cause"` // what made it: "boot", "attach nginx", …
	Level      string             `json:"level"` // integrity level when it was composed
}

// GenerationModule is a module's place in a generation.
type GenerationModule struct {
	ID                string          `json:"id"` // the platform's, if it assigned the module
	Name              string          `json:"name"`
	Version           string          `json:"version"`
	ManifestDigest    string          `json:"manifest_digest"`
	Seal              fsverity.Digest `json:"seal"`
	EffectivePriority int             `json:"effective_priority"`
}

const generationLock = "lock"

// PutGeneration stores the root image, checks that its digest is g.RootDigest, puts everything on
// the disk and writes the generation's record under the next number, which it returns. image may
// be nil if the root image is in the store as an object already. Every module of g must be in the
// store. g.Number is ignored.
func (s *Store) PutGeneration(g Generation, image io.Reader) (uint64, error) {
	if err := s.writable(); err != nil {
		return 0, err
	}
	number, err := s.putGeneration(g, image)
	if err != nil {
		return 0, fmt.Errorf("store generation with root %s: %w", g.RootDigest, err)
	}
	return number, nil
}

func (s *Store) putGeneration(g Generation, image io.Reader) (uint64, error) {
	if g.RootDigest.IsZero() {
		return 0, fault.New(fault.Refuse, fault.Verify, "", "it has no root digest")
	}
	failures := s.failures.Load()
	if err := s.putImage(g.RootDigest, image); err != nil {
		return 0, err
	}
	if err := s.shareLocked(); err != nil {
		return 0, err
	}
	// Where the image is on the disk already, so is all that the generation refers to: the modules' records say so of theirs.
	if !s.isSynced(g.RootDigest) {
		if err := s.syncSince(failures); err != nil {
			return 0, err
		}
	}
	if !s.HasObject(g.RootDigest) {
		return 0, s.objectError("find image", g.RootDigest, fs.ErrNotExist)
	}
	for _, m := range g.Modules {
		if !s.HasModule(m.ManifestDigest) {
			return 0, fault.New(fault.Refuse, fault.General, "pull it first", "module %s %s (%s) isn't in the store", m.Name, m.Version, m.ManifestDigest)
		}
	}
	if s.Verity() == nil {
		if err := s.EnableVerity(context.Background(), []fsverity.Digest{g.RootDigest}); err != nil {
			return 0, err
		}
	}
	lock, err := s.lockGenerations()
	if err != nil {
		return 0, err
	}
	defer lock.Unlock()
	if g.Number, err = s.nextNumber(); err != nil {
		return 0, err
	}
	data, err := sealRecord(g)
	if err != nil {
		return 0, err
	}
	return g.Number, s.generations.WriteNew(generationFile(g.Number), data, recordPerm, "generation")
}

// lockGenerations keeps other handles from giving out numbers, moving pointers and sweeping.
func (s *Store) lockGenerations() (*durable.Lock, error) {
	if err := s.shareLocked(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), lockPatience)
	defer cancel()
	return s.generations.Lock(ctx, generationLock, durable.Exclusive)
}

func (s *Store) nextNumber() (uint64, error) {
	numbers, err := s.numbers()
	if err != nil || len(numbers) == 0 {
		return 1, err
	}
	last := numbers[len(numbers)-1]
	if last == math.MaxUint64 {
		return 0, damaged(s.generations.Path()+"/"+generationFile(last), errors.New("no number comes after it"))
	}
	return last + 1, nil
}

// Numbers returns the numbers of all generations, those with a damaged record too, in order.
func (s *Store) Numbers() ([]uint64, error) { return s.numbers() }

// numbers returns the numbers of all records, damaged ones too, in order.
func (s *Store) numbers() ([]uint64, error) {
	names, err := s.generations.Names()
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, name := range names {
		if n, ok := parseGenerationFile(name); ok {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

func generationFile(n uint64) string { return strconv.FormatUint(n, 10) + ".json" }

func parseGenerationFile(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, ".json")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil && n > 0 && generationFile(n) == name
}

// Generation returns the record with that number. One that isn't here gives an error that wraps
// fs.ErrNotExist.
func (s *Store) Generation(n uint64) (Generation, error) {
	g, err := s.readGenerations.read(s.generations, generationFile(n))
	if errors.Is(err, fs.ErrNotExist) {
		return Generation{}, fault.New(fault.Refuse, fault.General, "choose one that is listed", "generation %d isn't in the store: %w", n, err)
	}
	if err == nil && (g.Number != n || g.RootDigest.IsZero()) {
		err = damaged(s.generations.Path()+"/"+generationFile(n), fmt.Errorf("it is the record of generation %d with root %q", g.Number, g.RootDigest))
	}
	if err != nil {
		return Generation{}, err
	}
	g.Modules = slices.Clone(g.Modules)
	return g, nil
}

// Generations returns all generations in order. Damaged ones are left out and make err: the list
// is good also when err isn't nil.
func (s *Store) Generations() ([]Generation, error) {
	numbers, err := s.numbers()
	if err != nil {
		return nil, err
	}
	var (
		generations []Generation
		errs        []error
	)
	for _, n := range numbers {
		g, err := s.Generation(n)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		generations = append(generations, g)
	}
	return generations, errors.Join(errs...)
}

// RemoveGeneration removes a generation's record and its side records. It refuses one that a pointer names or that is
// pinned, and the latest: its number would be given out again.
func (s *Store) RemoveGeneration(n uint64) error {
	if err := s.writable(); err != nil {
		return err
	}
	lock, err := s.lockGenerations()
	if err != nil {
		return err
	}
	defer lock.Unlock()
	next, err := s.nextNumber()
	if err != nil {
		return err
	}
	keep := map[uint64]string{next - 1: "the latest"}
	for _, name := range []PointerName{Current, Previous, Staged} {
		pointed, err := s.Pointer(name)
		if err != nil {
			return err
		}
		keep[pointed] = string(name)
	}
	if pin, _ := s.Pin(n); pin.Generation != 0 { // a damaged one, too
		keep[n] = "pinned"
	}
	if why, ok := keep[n]; ok {
		return fault.New(fault.Refuse, fault.Destructive, "", "remove generation %d: it is %s", n, why)
	}
	// First, so that a crash leaves none without a generation.
	for _, kind := range sideKinds {
		if err := s.removeSide(n, kind); err != nil {
			return err
		}
	}
	return s.generations.Remove(generationFile(n), "generation")
}

// OpenRootImage opens the root image with that digest.
func (s *Store) OpenRootImage(root fsverity.Digest) (*os.File, error) { return s.OpenObject(root) }
