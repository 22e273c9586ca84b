// Package kconfig says, as data, which kernel options labctl's features need.
package kconfig

import _ "embed"

// Features is features.yaml: feature → needed options.
//
//go:embed features.yaml
var Features []byte
