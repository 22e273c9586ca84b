package kernel

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"labctl/host/cachedir"
	"labctl/host/kernel/debian"
	"labctl/host/outcome"
	"labctl/host/scratch"
)

// Offer is what a source currently serves for one architecture.
type Offer struct {
	Name    string `json:"name"` // as accepted by `--kernel`
	From    string `json:"from"` // "debian:trixie"
	Arch    string `json:"arch"`
	Version string `json:"version"` // of the package or module; "" when Error is set
	Package string `json:"package"` // the package with the image: "linux-image-6.12.107+deb13-amd64"; the Go module
	Cached  bool   `json:"cached"`  // exactly this version is cached
	Error   string `json:"error,omitempty"`

	Err error `json:"-"` // Error as an error value
}

// offersAtOnce limits the number of archives queried concurrently: each answer is
// an index of megabytes to decompress.
const offersAtOnce = 4

// Offers queries every source and returns what each serves, in the order of the
// list. If a source does not answer, or takes longer than patience, its row has the
// error. An empty arch means all. report is called for each row as it is known, by one
// goroutine at a time.
func (c *Cache) Offers(ctx context.Context, arch string, patience time.Duration, report func(Offer)) ([]Offer, error) {
	kernels, err := c.List()
	if err != nil {
		return nil, err
	}
	// One index covers all flavours of a suite: query them together.
	type index struct{ kind, of, arch string }
	var order []index
	groups := map[index][]int{}
	var all []Offer
	var srcs []Source
	for _, src := range pulled() {
		for _, a := range archNames(src.Arch) {
			if arch != "" && a != arch {
				continue
			}
			at := index{src.Kind, src.Suite + src.Module, a}
			if groups[at] == nil {
				order = append(order, at)
			}
			groups[at] = append(groups[at], len(all))
			all, srcs = append(all, Offer{Name: src.name(), From: src.ref(), Arch: a}), append(srcs, src)
		}
	}
	var wg sync.WaitGroup
	var reporting sync.Mutex
	turn := make(chan struct{}, offersAtOnce)
	for _, at := range order {
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			ctx, cancel := context.WithTimeoutCause(ctx, patience, outcome.Hostf("no answer within %v", patience))
			defer cancel()
			ask, done, err := c.asker(at.kind, at.arch)
			for _, i := range groups[at] {
				o := &all[i]
				if err != nil {
					o.Err = err
				} else {
					o.Version, o.Package, o.Err = ask(ctx, srcs[i])
				}
				if o.Err != nil && ctx.Err() != nil { // whatever that broke
					o.Err = context.Cause(ctx)
				}
				if o.Err != nil {
					o.Err = outcome.Default(outcome.HostLacks, outcome.Said(fmt.Errorf("%s for %s: %w", o.From, o.Arch, o.Err)))
					o.Error = o.Err.Error()
				}
				for _, k := range kernels {
					o.Cached = o.Cached || o.Err == nil && k.Arch == o.Arch && k.Version == o.Version && k.key() == srcs[i].key() && k.Source == srcs[i].Kind
				}
				if report != nil {
					reporting.Lock()
					report(*o)
					reporting.Unlock()
				}
			}
			done()
		})
	}
	wg.Wait()
	return all, context.Cause(ctx)
}

// asker returns a function that queries a source for its version and package, and
// a function that releases its resources.
func (c *Cache) asker(kind, arch string) (ask func(context.Context, Source) (version, pkg string, err error), done func(), err error) {
	if kind == KindModule {
		return func(ctx context.Context, src Source) (string, string, error) {
			version, err := latestModule(ctx, src.Module)
			return version, src.Module, err
		}, func() {}, nil
	}
	// Not the directory of a pull, which may be in use.
	parent := filepath.Join(c.dir, "apt")
	if err := cachedir.Make(parent, 0o755); err != nil {
		return nil, func() {}, err
	}
	folder, err := scratch.MakeFolder(parent, ".offers-")
	if err != nil {
		return nil, func() {}, err
	}
	updated := ""
	return func(ctx context.Context, src Source) (string, string, error) {
		repo := c.repository(src, arch, "")
		index := src.Component + " " + src.Arch[arch].Debian
		if root, ok := repo.(*debian.Root); ok {
			root.Dir, root.Updated = folder.Path, updated == index
		}
		pkgs, err := repo.Resolve(ctx, src.Arch[arch].Package, func(Progress) {})
		if err != nil {
			return "", "", err
		}
		updated = index
		return pkgs[0].Version, pkgs[0].Name, nil
	}, func() { folder.Close() }, nil
}
