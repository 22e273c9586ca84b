package image

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// maxBuildIDs bounds what BuildIDs returns: a kernel has its own, and one for each vDSO.
const maxBuildIDs = 64

// BuildIDs returns the build-ids that lie in a kernel or in a section of notes, in the
// order of their places: a kernel's own, and those of the vDSOs that it holds.
//
// An ELF note (elf(5), Nhdr) is namesz/4 descsz/4 type/4, then the name, here "GNU" with
// its end, and the description, which is the build-id. All architectures that labctl knows
// are little-endian.
func BuildIDs(b []byte) (ids [][]byte) {
	name := []byte("\x03\x00\x00\x00GNU\x00") // NT_GNU_BUILD_ID
	for at := 0; len(ids) < maxBuildIDs; {
		i := bytes.Index(b[at:], name)
		if i < 0 {
			break
		}
		head, desc := at+i-8, at+i+len(name)
		at = desc
		if head < 0 || binary.LittleEndian.Uint32(b[head:]) != 4 {
			continue
		}
		// 16 bytes of MD5 or a UUID, 20 of SHA-1; --build-id=0x… may be of any length.
		if n := int(binary.LittleEndian.Uint32(b[head+4:])); n >= 8 && n <= 64 && desc+n <= len(b) {
			ids = append(ids, slices.Clone(b[desc:desc+n]))
		}
	}
	return ids
}
