package images

import _ "embed"

// Initramfs is initramfs.yaml: the contents of the base of every guest.
//
//go:embed initramfs.yaml
var Initramfs []byte

// URootMod and URootSum are the go.mod and go.sum of u-root's commands in the base.
var (
	//go:embed uroot.mod
	URootMod []byte
	//go:embed uroot.sum
	URootSum []byte
)
