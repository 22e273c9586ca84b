// Package images describes, as data, what labctl boots.
package images

import _ "embed"

// Kernels is kernels.yaml: the source of each kernel.
//
//go:embed kernels.yaml
var Kernels []byte
