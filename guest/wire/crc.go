package wire

import "hash/crc32"

// prefix is the checksums of the beginnings of a buffer, as far as they were needed.
type prefix struct {
	crc []uint32 // crc[i] is that of i bytes
	n   int      // valid up to
}

// between returns the checksum of b[from:to].
//
// A checksum is linear: that of two parts together is that of the first one, shifted over
// the length of the second, added to that of the second (zlib's crc32_combine).
func (p *prefix) between(b []byte, from, to int) uint32 {
	if len(p.crc) <= len(b) {
		p.crc, p.n = make([]uint32, len(b)+1), 0
	}
	crc := ^p.crc[p.n] // crc32.Update of a byte each is ten times slower
	for ; p.n < to; p.n++ {
		crc = castagnoli[byte(crc)^b[p.n]] ^ crc>>8
		p.crc[p.n+1] = ^crc
	}
	return shift(p.crc[from], to-from) ^ p.crc[to]
}

// shifts[i][j] is what bit j of a checksum becomes after 2^i zero bytes.
var shifts = func() (s [32][32]uint32) {
	for j := range 32 {
		bit := uint32(1) << j
		for range 8 { // one byte: eight steps of the reflected polynomial
			if bit&1 != 0 {
				bit = bit>>1 ^ crc32.Castagnoli
			} else {
				bit >>= 1
			}
		}
		s[0][j] = bit
	}
	for i := 1; i < len(s); i++ {
		for j := range 32 {
			s[i][j] = times(&s[i-1], s[i-1][j])
		}
	}
	return s
}()

func times(m *[32]uint32, v uint32) (sum uint32) {
	for j := 0; v != 0; j, v = j+1, v>>1 {
		if v&1 != 0 {
			sum ^= m[j]
		}
	}
	return sum
}

// shift returns what a checksum contributes to that of n more bytes.
func shift(crc uint32, n int) uint32 {
	for i := 0; n != 0; i, n = i+1, n>>1 {
		if n&1 != 0 {
			crc = times(&shifts[i], crc)
		}
	}
	return crc
}
