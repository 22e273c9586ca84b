package machine

import (
	"context"

	"labctl/host/kernel"
	"labctl/host/outcome"
	"labctl/host/outside"
	"labctl/host/registry"
)

// Outside finds the kernel of a running machine in its memory. Where it is is kept with
// the template that the machine started from. debuginfo, when given, is a vmlinux of that
// kernel with types.
func Outside(ctx context.Context, env Env, m *registry.Machine, debuginfo string) (*outside.Guest, error) {
	ref, err := kernel.ParseRef(m.Kernel.Ref)
	if err != nil {
		return nil, err
	}
	image, err := env.Cache.Find(ref, m.Arch)
	if err != nil {
		return nil, err
	}
	if image.ImageSHA256() != m.Kernel.SHA256 {
		return nil, outcome.Inputf("machine %s runs another kernel %s than the cache has now; start it again", m.Name, m.Kernel.Release)
	}
	if debuginfo != "" {
		if err := image.SetDebuginfo(debuginfo); err != nil {
			return nil, err
		}
	}
	known, keep := outside.Known(m.Template)
	g, err := outside.Open(ctx, m, image, known)
	if err == nil && (known == nil || *known != g.Anchor()) {
		keep(g.Anchor())
	}
	if err == nil && g.Slow() != "" {
		env.say("%s", g.Slow())
	}
	return g, err
}
