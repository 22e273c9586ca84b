package image

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// buildNote is an ELF note of the GNU tools.
func buildNote(kind uint32, desc string) string {
	b := binary.LittleEndian.AppendUint32(nil, 4)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(desc)))
	b = binary.LittleEndian.AppendUint32(b, kind)
	return string(b) + "GNU\x00" + desc
}

func TestBuildIDs(t *testing.T) {
	const sha, md5 = "01234567890123456789", "abcdefghijklmnop"
	for _, c := range []struct {
		name, in string
		want     []string
	}{
		{"none", "", nil},
		{"one", "x" + buildNote(3, sha) + "y", []string{sha}},
		{"two", buildNote(3, md5) + strings.Repeat("\x00", 3) + buildNote(3, sha), []string{md5, sha}},
		{"of another type", buildNote(4, sha), nil},
		{"cut", buildNote(3, sha)[:30], nil},
		{"no header", buildNote(3, sha)[8:], nil},
		{"too long", buildNote(3, strings.Repeat("x", 65)), nil},
		{"too short", buildNote(3, "1234567"), nil},
		{"another owner's", strings.Replace(buildNote(3, sha), "GNU", "XEN", 1), nil},
		{"bounded", strings.Repeat(buildNote(3, sha), 2*maxBuildIDs), strings.Split(strings.Repeat(sha+" ", maxBuildIDs)[:21*maxBuildIDs-1], " ")},
	} {
		var got []string
		for _, id := range BuildIDs([]byte(c.in)) {
			got = append(got, string(id))
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: -want +got\n%s", c.name, d)
		}
	}
}

func FuzzBuildIDs(f *testing.F) {
	f.Add([]byte(buildNote(3, "01234567890123456789")))
	f.Add([]byte(buildNote(3, "0123456789")[4:]))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, id := range BuildIDs(b) {
			if len(id) < 8 || len(id) > 64 || !bytes.Contains(b, id) {
				t.Errorf("build-id %x is not in the input", id)
			}
		}
	})
}
