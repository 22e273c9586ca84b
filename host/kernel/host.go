package kernel

import (
	"context"

	"labctl/host/kernel/debian"
	"labctl/host/kernel/image"
)

// ErrNotKernel is wrapped when a file is not a known kind of kernel image.
var ErrNotKernel = image.ErrNotKernel

// ErrNoKallsyms is wrapped when an image has no readable kallsyms table.
var ErrNoKallsyms = image.ErrNoKallsyms

// Stage is a stage of a pull.
type Stage = debian.Stage

// The stages of a pull; see package debian.
const (
	StageWait     = debian.StageWait
	StageDamaged  = debian.StageDamaged
	StageIndex    = debian.StageIndex
	StageDownload = debian.StageDownload
	StageUnpack   = debian.StageUnpack
	StageInspect  = debian.StageInspect
	StageTypes    = debian.StageTypes
	StageDone     = debian.StageDone
)

// Mirror returns the mirror that Debian kernels are pulled from.
func Mirror(ctx context.Context) (string, error) { return debian.Mirror(ctx) }

// Dir returns labctl's cache directory.
func (c *Cache) Dir() string { return c.dir }
