// Package labs holds the labs, so that a labctl binary has them wherever it runs.
package labs

import "embed"

// FS has a folder for each lab: lab.yaml and what stands beside it. Files are
// named by their kind, since a folder that is still empty cannot be embedded.
//
//go:embed */lab.yaml */*.md */*/*.go */*/*.md */*/*.c
var FS embed.FS
