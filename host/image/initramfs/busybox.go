package initramfs

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/u-root/u-root/pkg/cpio"

	"labctl/host/image/busybox"
	"labctl/host/kernel/debian"
)

// busyboxDir is where busybox and the links to it are.
const busyboxDir = "usr/bin"

// busybox returns the archive with busybox's commands, "" where this host cannot have
// it, which is said.
func (b *builder) busybox(ctx context.Context, r recipe, arch string, report func(debian.Progress)) (string, error) {
	store, err := busybox.Open()
	if err != nil {
		return "", err
	}
	box, err := store.Get(ctx, r.Busybox.Source, arch, report)
	var refused *busybox.RefusedError
	if errors.As(err, &refused) {
		b.say(err.Error() + "; the guest has u-root's commands alone")
		return "", nil
	}
	if err != nil {
		return "", err
	}
	k := newKey("busybox")
	k.add(arch, box.SHA256)
	k.add(slices.Sorted(maps.Keys(r.Busybox.Without))...)
	path, _, err := b.cache.get(ctx, k.name("busybox", arch), func(w io.Writer) error {
		data, err := os.ReadFile(box.Path)
		if err != nil {
			return err
		}
		return writeBusybox(w, data, r.Busybox.Without)
	})
	return path, err
}

func writeBusybox(w io.Writer, program []byte, without map[string]string) error {
	names, err := busybox.Applets(program)
	if err != nil {
		return err
	}
	a := newArchive(w)
	if err := a.add(busyboxDir+"/busybox", cpio.S_IFREG|0o755, program); err != nil {
		return err
	}
	for _, name := range names {
		if _, left := without[name]; left || name == "busybox" {
			continue
		}
		if err := a.add(busyboxDir+"/"+name, cpio.S_IFLNK|0o777, []byte("busybox")); err != nil {
			return err
		}
	}
	return a.close()
}
