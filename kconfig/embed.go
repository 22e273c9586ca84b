// Package kconfig contains, as data, the kernel options that labctl's features need,
// the configuration of kernels that labctl builds, and the fixes that old trees need
// to be built with current compilers.
package kconfig

import "embed"

// Features is features.yaml: feature → needed options.
//
//go:embed features.yaml
var Features []byte

// Fragments contains NAME.config and NAME-ARCH.config.
//
//go:embed *.config
var Fragments embed.FS

// Profiles is profiles.yaml: profile → fragments and features.
//
//go:embed profiles.yaml
var Profiles []byte

// Compilers is compilers.yaml: incompatibility of a tree and a compiler → compiler
// options.
//
//go:embed compilers.yaml
var Compilers []byte
