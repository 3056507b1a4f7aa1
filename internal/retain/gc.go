package retain

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/store"
)

// Options say what to collect.
type Options struct {
	// Newest is how many of the newest generations are kept; 0 is DefaultNewest.
	Newest int
	// Running, Root and Mounted are what runs: the generation, the root digest of "/", and those of all roots that are
	// mounted. Zero where nothing of this store can be running.
	Running uint64
	Root    fsverity.Digest
	Mounted map[fsverity.Digest]struct{}
	// Beneath is that of an Input.
	Beneath map[fsverity.Digest][]fsverity.Digest
	// SpareModules keeps modules that came less long ago, also where no generation has them, as those of an update
	// that an outage cut off; 0 keeps none.
	SpareModules time.Duration
	// PartialAge is how old a partial download has to be; 0 is a week.
	PartialAge time.Duration
	// Uppers removes the writable layers of roots that keep doesn't hold, or with dryRun says what it would
	// remove; nil leaves them.
	Uppers func(ctx context.Context, keep map[fsverity.Digest]struct{}, dryRun bool) (Amount, error)
	// Now is the time; zero is that of the call.
	Now time.Time
}

// DefaultPartialAge is how long a partial download waits for another attempt.
const DefaultPartialAge = 7 * 24 * time.Hour

// Amount counts things and the bytes that they take on the disk.
type Amount struct {
	Count int   `json:"count"`
	Bytes int64 `json:"bytes"`
}

func (a *Amount) add(bytes int64) {
	a.Count++
	a.Bytes += bytes
}

// Report is what a collection removed, or would remove. It is the documented shape of `gc --output json`.
type Report struct {
	DryRun bool `json:"dry_run"`
	// FreedBytes is all that it takes on the disk.
	FreedBytes int64 `json:"freed_bytes"`
	// Generations are those that went, Kept those that stay, each with the reasons.
	Generations []Verdict    `json:"generations"`
	Kept        []Verdict    `json:"kept"`
	Modules     []GoneModule `json:"modules"`
	// Records are the records of generations and modules, Objects what they referred to, Partials downloads that were
	// cut off, and Uppers writable layers.
	Records  Amount `json:"records"`
	Objects  Amount `json:"objects"`
	Partials Amount `json:"partials"`
	Uppers   Amount `json:"uppers"`
	// Remarks are what a person should know.
	Remarks []string `json:"remarks,omitempty"`
}

// GoneModule is a module that went. Name and version are empty where its record was damaged.
type GoneModule struct {
	Name           string `json:"name,omitempty"`
	Version        string `json:"version,omitempty"`
	ManifestDigest string `json:"manifest_digest"`
}

func (r *Report) total() {
	r.FreedBytes = r.Records.Bytes + r.Objects.Bytes + r.Partials.Bytes + r.Uppers.Bytes
}

// Plan returns what Collect would remove now. It reads only; the store may be open for reading.
func Plan(ctx context.Context, st *store.Store, o Options) (*Report, error) {
	p, err := look(st, o)
	if err != nil {
		return nil, err
	}
	r := p.report
	r.DryRun = true
	p.countRecords()
	gone, err := st.Unlisted(ctx, p.objects)
	if err != nil {
		return nil, err
	}
	r.Objects = Amount{gone.Objects, gone.Bytes}
	if err := p.eachPartial(func(f store.PartialFile) (bool, error) { return true, nil }); err != nil {
		return nil, err
	}
	if err := p.uppers(ctx, true); err != nil {
		return nil, err
	}
	r.total()
	return r, nil
}

// Collect removes what nothing needs: the generations that Decide gives up, the modules and objects that no other
// refers to, old partial downloads, and old writable layers. It fails with kind Retry, and removes nothing, while
// another handle is at work in the store, as in a pull; one that comes later waits. It fails with kind Broken, and removes nothing, where a
// record is damaged that says what is needed. The caller holds the lock for changing what the node runs. st must
// have nothing in it that isn't part of a module.
//
// The report says what was removed also where the error isn't nil.
func Collect(ctx context.Context, st *store.Store, o Options) (r *Report, err error) {
	release, err := st.Alone()
	if err != nil {
		return &Report{}, fmt.Errorf("collect what nothing needs: %w", err)
	}
	defer func() { err = errors.Join(err, release()) }()
	p, err := look(st, o)
	if err != nil {
		return &Report{}, fmt.Errorf("collect what nothing needs: %w", err)
	}
	err = p.remove(ctx)
	p.report.total()
	if err != nil {
		return p.report, fmt.Errorf("collect what nothing needs: %w", err)
	}
	return p.report, nil
}

// remove goes from what refers to what is referred to, each step on the disk before the next begins.
func (p *plan) remove(ctx context.Context) error {
	gone := *p.report
	p.report.Generations, p.report.Modules = []Verdict{}, []GoneModule{}
	if err := p.raiseFloors(ctx); err != nil {
		return err
	}
	for _, v := range gone.Generations {
		bytes := p.st.GenerationBytes(v.Generation)
		if err := p.st.RemoveGeneration(v.Generation); err != nil {
			return err
		}
		p.report.Generations = append(p.report.Generations, v)
		p.report.Records.add(bytes)
	}
	for _, m := range gone.Modules {
		bytes := p.st.ModuleBytes(m.ManifestDigest)
		if err := p.st.RemoveModule(m.ManifestDigest); err != nil {
			return err
		}
		p.report.Modules = append(p.report.Modules, m)
		p.report.Records.add(bytes)
	}
	err := p.removeObjects(ctx, p.objects)
	if err == nil {
		err = p.eachPartial(func(f store.PartialFile) (bool, error) { return p.st.RemovePartial(f.Digest, p.before) })
	}
	if err == nil {
		err = p.uppers(ctx, false)
	}
	return err
}

// raiseFloors writes down how high versions were, before the generations go that say so. That may need room where
// there is none: then what no record refers to goes first.
func (p *plan) raiseFloors(ctx context.Context) error {
	err := p.st.RaiseFloors(store.Generation{}, p.o.Now)
	if !errors.Is(err, unix.ENOSPC) {
		return err
	}
	listed, reachErr := p.st.Reachable()
	if reachErr != nil {
		return errors.Join(err, reachErr)
	}
	if err := p.removeObjects(ctx, listed); err != nil {
		return err
	}
	return p.st.RaiseFloors(store.Generation{}, p.o.Now)
}

func (p *plan) removeObjects(ctx context.Context, listed map[fsverity.Digest]struct{}) error {
	gone, err := p.st.RemoveUnlisted(ctx, listed)
	p.report.Objects.Count += gone.Objects
	p.report.Objects.Bytes += gone.Bytes
	return err
}

func (p *plan) uppers(ctx context.Context, dryRun bool) (err error) {
	if p.o.Uppers != nil {
		p.report.Uppers, err = p.o.Uppers(ctx, p.roots, dryRun)
	}
	return err
}

// eachPartial counts the partial downloads that are old enough, as far as remove says that they go.
func (p *plan) eachPartial(remove func(f store.PartialFile) (bool, error)) error {
	partials, err := p.st.Partials()
	if err != nil {
		return err
	}
	for _, f := range partials {
		if !f.Modified.Before(p.before) {
			continue
		}
		gone, err := remove(f)
		if err != nil {
			return err
		}
		if gone {
			p.report.Partials.add(f.Bytes)
		}
	}
	return nil
}

func (p *plan) countRecords() {
	for _, v := range p.report.Generations {
		p.report.Records.add(p.st.GenerationBytes(v.Generation))
	}
	for _, m := range p.report.Modules {
		p.report.Records.add(p.st.ModuleBytes(m.ManifestDigest))
	}
}

// damaged refuses to collect because something can't be read that may say what is needed.
func damaged(format string, args ...any) error {
	return fault.New(fault.Broken, fault.Verify, "see powernode-agent status --check; powernode-agent update mends what is assigned", format, args...)
}
