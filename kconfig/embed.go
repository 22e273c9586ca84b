// Package kconfig holds, as data, which kernel options labctl's features need,
// what a kernel is configured with that labctl builds, and what old trees need
// to be built by the compilers of today.
package kconfig

import "embed"

// Features is features.yaml: feature → needed options.
//
//go:embed features.yaml
var Features []byte

// Fragments holds NAME.config and NAME-ARCH.config.
//
//go:embed *.config
var Fragments embed.FS

// Profiles is profiles.yaml: profile → fragments and features.
//
//go:embed profiles.yaml
var Profiles []byte

// Compilers is compilers.yaml: what a tree and a compiler have against each
// other → what to say to the compiler.
//
//go:embed compilers.yaml
var Compilers []byte
