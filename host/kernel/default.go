package kernel

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"

	"labctl/host/bounded"
	"labctl/host/cachedir"
	"labctl/host/scratch"
)

// defaultsFile notes which kernel was the default of each architecture, so that a run
// is not on another one than the last only because that one was lost.
const defaultsFile = "default-kernels.json"

// Default returns the kernel to use for an architecture if none is named: the newest
// cached long-term series, else the fallback of kernels.yaml. Once it was used a
// series stays the default when it is not cached any more, until Remove takes it away;
// then, and when a newer one is cached, Say is told of the change.
func (c *Cache) Default(arch string) Ref {
	rows, _ := c.Sources(arch) // unreadable counts as nothing cached
	was := c.defaults()[arch]
	name := newestLongTerm(rows)
	old := slices.IndexFunc(rows, func(r Row) bool { return r.Name == was })
	switch {
	case name == was:
	case was == "":
		c.setDefault(arch, name)
	case old >= 0 && rows[old].Kernel == nil && rows[old].LongTerm:
		name = was // Get will pull it
	case name == "":
	default:
		c.changed(arch, was, name)
	}
	ref, err := ParseRef(cmp.Or(name, sources().Fallback))
	if err != nil {
		panic(err) // Open has read and checked kernels.yaml
	}
	return ref
}

// newestLongTerm returns the name of the newest cached long-term series, "" for none.
func newestLongTerm(rows []Row) string {
	var best Row
	for _, r := range rows {
		if r.Kernel != nil && r.LongTerm && (best.Name == "" || compareSeries(r.Series, best.Series) > 0) {
			best = r
		}
	}
	return best.Name
}

// forget makes another kernel the default, if a removed one was.
func (c *Cache) forget(arch string) {
	rows, _ := c.Sources(arch)
	was := c.defaults()[arch]
	if was == "" || slices.ContainsFunc(rows, func(r Row) bool { return r.Name == was && r.Kernel != nil }) {
		return
	}
	c.changed(arch, was, newestLongTerm(rows))
}

func (c *Cache) changed(arch, was, name string) {
	if c.Say != nil && name != "" {
		c.Say(fmt.Sprintf("the default kernel for %s is %s now; it was %s", arch, name, was))
	}
	c.setDefault(arch, name)
}

func (c *Cache) defaults() map[string]string {
	text, err := bounded.ReadFile(filepath.Join(c.dir, defaultsFile), maxMeta)
	byArch := map[string]string{}
	if err != nil || cachedir.UnmarshalSummed(text, &byArch) != nil || byArch == nil {
		return map[string]string{}
	}
	return byArch
}

// setDefault notes a default; an empty name removes the note.
func (c *Cache) setDefault(arch, name string) {
	byArch := c.defaults()
	if byArch[arch] == name {
		return
	}
	byArch[arch] = name // "" as well, so that the object is never empty
	text, err := cachedir.MarshalSummed(byArch)
	if err == nil {
		_ = scratch.Write(filepath.Join(c.dir, defaultsFile), text, 0o644) // a read-only cache has no memory
	}
}
