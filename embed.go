// Package labctl holds the sources of the guest's programs, so that a labctl
// binary can build them wherever it runs and host and guest never disagree.
package labctl

import "embed"

// Source is this module's go.mod, go.sum and guest folder.
//
//go:embed go.mod go.sum guest
var Source embed.FS
