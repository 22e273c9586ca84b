// Package images says, as data, what labctl boots.
package images

import _ "embed"

// Kernels is kernels.yaml: where each kernel comes from.
//
//go:embed kernels.yaml
var Kernels []byte
