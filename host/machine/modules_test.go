package machine

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/host/kernel"
)

func TestModulesTar(t *testing.T) {
	data, err := modulesTar([]kernel.Module{
		{Name: "crc16", File: "kernel/lib/crc16.ko", Data: []byte("c")},
		{Name: "jbd2", File: "kernel/fs/jbd2/jbd2.ko", Data: []byte("j")},
		{Name: "loop", BuiltIn: true},
		{Name: "ext4", File: "kernel/fs/ext4/ext4.ko", Data: []byte("e"), Needs: []string{"jbd2", "crc16"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got[h.Name] = string(text)
	}
	want := map[string]string{
		"kernel/lib/crc16.ko": "c", "kernel/fs/jbd2/jbd2.ko": "j", "kernel/fs/ext4/ext4.ko": "e",
		"modules.dep":     "kernel/lib/crc16.ko:\nkernel/fs/jbd2/jbd2.ko:\nkernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko\n",
		"modules.builtin": "kernel/loop.ko\n",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("archive (-want +got):\n%s", diff)
	}
}
