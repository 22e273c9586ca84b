package images

import _ "embed"

// Initramfs is initramfs.yaml: what the base of every guest is made of.
//
//go:embed initramfs.yaml
var Initramfs []byte
