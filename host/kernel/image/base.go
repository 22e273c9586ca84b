package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"strconv"
	"strings"
)

// BannerAddress returns the link address of the banner, in the terms of the symbols that
// Kallsyms returned.
func (img *Image) BannerAddress(kallsyms []byte) (uint64, bool) {
	off := bytes.Index(img.Kernel, []byte(img.Banner))
	if off < 0 {
		return 0, false
	}
	if data, ok := img.VmlinuxELF(); ok {
		f, err := elf.NewFile(bytes.NewReader(data))
		if err != nil {
			return 0, false
		}
		return elfAddress(f, uint64(off))
	}
	base, ok := img.FlatBase(kallsyms)
	return base + uint64(off), ok
}

// FlatBase returns the link address of the first byte of a flat image, in the terms of
// the symbols that Kallsyms returned. Without CONFIG_KALLSYMS_ALL they have no name for
// it, since what is before _stext is not text (scripts/kallsyms.c, text_ranges).
//
// Functions begin alike: with an instruction that the compiler puts at the start of most
// of them, or with the NOP that ftrace patches. So of all distances between the first
// byte and _stext, the right one is that for which most symbols begin with the same word.
func (img *Image) FlatBase(kallsyms []byte) (uint64, bool) {
	const (
		samples = 4000
		reach   = 4 << 20
		step    = 4096
	)
	var first uint64
	var starts []uint64 // relative to the first symbol
	for line := range bytes.Lines(kallsyms) {
		f := strings.Fields(string(line))
		if len(f) != 3 || f[1] != "t" && f[1] != "T" {
			continue
		}
		addr, err := strconv.ParseUint(f[0], 16, 64)
		if err != nil {
			return 0, false
		}
		switch f[2] {
		case "_text":
			return addr, true
		case "_stext":
			first = addr
		}
		if first != 0 && len(starts) < samples && addr%4 == 0 && (len(starts) == 0 || addr-first != starts[len(starts)-1]) {
			starts = append(starts, addr-first)
		}
	}
	best, most, second := uint64(0), 0, 0
	for d := uint64(0); d < reach && len(starts) > 0; d += step {
		words := map[uint32]int{}
		top := 0
		for _, s := range starts {
			if at := d + s; at+4 <= uint64(len(img.Kernel)) {
				w := binary.LittleEndian.Uint32(img.Kernel[at:])
				if words[w]++; w != 0 && w != ^uint32(0) {
					top = max(top, words[w])
				}
			}
		}
		if top > most {
			best, most, second = d, top, most
		} else {
			second = max(second, top)
		}
	}
	// Most symbols begin alike, and far fewer words are alike at any other distance.
	return first - best, most > len(starts)/5 && most > 2*second
}
