package kernel

import (
	"context"

	"labctl/host/kernel/debian"
	"labctl/host/kernel/image"
)

// ErrNotKernel is wrapped when a file is no kernel image that labctl knows.
var ErrNotKernel = image.ErrNotKernel

// ErrNoKallsyms is wrapped when an image has no table of symbols that can be
// read.
var ErrNoKallsyms = image.ErrNoKallsyms

// Stage is a step of a pull.
type Stage = debian.Stage

// The steps of a pull; see package debian.
const (
	StageWait     = debian.StageWait
	StageDamaged  = debian.StageDamaged
	StageIndex    = debian.StageIndex
	StageDownload = debian.StageDownload
	StageUnpack   = debian.StageUnpack
	StageInspect  = debian.StageInspect
	StageDone     = debian.StageDone
)

// Mirror is where Debian kernels would be pulled from.
func Mirror(ctx context.Context) (string, error) { return debian.Mirror(ctx) }

// Dir is labctl's cache folder.
func (c *Cache) Dir() string { return c.dir }
