// Package labs holds the labs, so that a labctl binary has them wherever it runs.
package labs

import "embed"

// FS has a folder for each lab: lab.yaml and what stands beside it.
//
//go:embed *
var FS embed.FS
