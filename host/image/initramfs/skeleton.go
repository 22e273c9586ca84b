package initramfs

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/u-root/u-root/pkg/cpio"

	"labctl/guest/wire"
)

// skeleton returns the archive with the directories, links and files that every guest
// has. It comes first: the archives after it fill its directories, also through links.
func (b *builder) skeleton(r recipe) ([]byte, error) {
	var buf bytes.Buffer
	a := newArchive(&buf)
	for _, name := range r.Folders {
		if err := a.add(name, cpio.S_IFDIR|0o755, nil); err != nil {
			return nil, err
		}
	}
	for _, name := range r.Public {
		if err := a.add(name, cpio.S_IFDIR|0o1777, nil); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Symlinks)) {
		if err := a.add(name, cpio.S_IFLNK|0o777, []byte(r.Symlinks[name])); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Files)) {
		if err := a.add(name, cpio.S_IFREG|0o644, []byte(r.Files[name])); err != nil {
			return nil, err
		}
	}
	zones, err := os.ReadFile(filepath.Join(b.tool.root, "lib", "time", "zoneinfo.zip"))
	if err != nil {
		return nil, fmt.Errorf("time zones of the Go toolchain: %w", err)
	}
	if err := a.add(wire.Zones[1:], cpio.S_IFREG|0o644, zones); err != nil {
		return nil, err
	}
	if err := a.close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
