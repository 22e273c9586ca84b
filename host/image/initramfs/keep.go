//go:build tools

package initramfs

// Libraries of u-root's commands that nothing in labctl imports. The base is
// built with the versions in labctl's go.mod, and `go mod tidy` would drop
// what this file does not name.
import (
	_ "github.com/dustin/go-humanize"
	_ "github.com/klauspost/pgzip"
	_ "github.com/rck/unit"
	_ "github.com/ulikunitz/xz"
	_ "github.com/vishvananda/netlink"
	_ "golang.org/x/exp/constraints"
)
