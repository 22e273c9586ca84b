package vm

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"labctl/host/bounded"
	"labctl/host/outcome"
)

// QEMU's migration stream (docs/devel/migration in QEMU; migration/savevm.c,
// migration/ram.c): the sections of RAM come first, then those of the devices. A page
// that is not in the stream stays what it is in the memory of the machine that loads it.
const (
	streamMagic = "QEVM"

	sectionStart  = 1
	sectionPart   = 2
	sectionEnd    = 3
	sectionFooter = 0x7e

	pageFlags    = 0xfff // of an offset
	flagZero     = 0x02
	flagMemSize  = 0x04
	flagPage     = 0x08
	flagEOS      = 0x10
	flagContinue = 0x20
	pageSize     = 4096

	ramVersion = 4
)

// Names of the blocks of RAM (object IDs of host/vm/qemu), with the path that newer
// machine types have before them.
const (
	ramBlock    = "ram"
	windowBlock = "window"
)

// Limits on what is read before it is understood.
const (
	maxStreamHead = 64 << 10 // bytes before RAM's first section
	maxBlocks     = 256
	maxDevices    = 256 << 20 // after RAM's last section
)

// errStream means that QEMU's stream is not as expected.
func errStream(format string, args ...any) error {
	return outcome.Hostf("QEMU's saved state is not in the form that labctl knows: "+format, args...)
}

// thin copies a migration stream from r to w without the pages of RAM that are the same
// in base, which the machine that loads it has already, and without those of the
// window, which is each machine's own. It returns how many pages are left.
func thin(w io.Writer, r io.Reader, base io.ReaderAt) (pages int, err error) {
	t := &thinner{r: bufio.NewReaderSize(r, 64<<10), w: bufio.NewWriterSize(w, 64<<10), base: base}
	if err := t.run(); err != nil {
		return t.pages, err
	}
	return t.pages, t.w.Flush()
}

type thinner struct {
	r     *bufio.Reader
	w     *bufio.Writer
	base  io.ReaderAt
	pages int

	block string // of the last page that was read
	wrote string // of the last page that was written
	err   error  // of reading
}

func (t *thinner) run() error {
	id, err := t.head()
	if err != nil {
		return err
	}
	for {
		if err := t.ram(); err != nil {
			return err
		}
		more, err := t.next(id)
		if err != nil || !more {
			return err
		}
	}
}

// head copies what comes before RAM's first section, and its header.
func (t *thinner) head() (id uint32, err error) {
	magic := t.take(len(streamMagic) + 4)
	if t.err != nil || string(magic[:4]) != streamMagic {
		return 0, errStream("it starts with %.8q", magic)
	}
	// Name, instance and version; before it the section's type and ID.
	want := append([]byte{3, 'r', 'a', 'm'}, 0, 0, 0, 0, 0, 0, 0, ramVersion)
	seen := append([]byte{}, magic...)
	for !bytes.HasSuffix(seen, want) {
		if len(seen) == maxStreamHead {
			return 0, errStream("it has no section of RAM")
		}
		b := t.take(1)
		if t.err != nil {
			return 0, errStream("it ends before the section of RAM")
		}
		seen = append(seen, b[0])
	}
	start := len(seen) - len(want) - 5
	if start < len(magic) || seen[start] != sectionStart {
		return 0, errStream("the section of RAM has no start")
	}
	_, err = t.w.Write(seen)
	return binary.BigEndian.Uint32(seen[start+1:]), err
}

// ram copies the records of a section.
func (t *thinner) ram() error {
	t.wrote = "" // a section's first page names its block
	for {
		h := t.u64()
		if t.err != nil {
			return errStream("it ends in a section of RAM")
		}
		offset, flags := h&^pageFlags, h&pageFlags
		switch {
		case flags == flagEOS:
			return t.put64(h)
		case flags == flagMemSize:
			if err := t.sizes(h, offset); err != nil {
				return err
			}
		case flags&^flagContinue == flagZero, flags&^flagContinue == flagPage:
			if err := t.page(offset, flags); err != nil {
				return err
			}
		default:
			return errStream("a record of RAM has the flags %#x", flags)
		}
	}
}

// sizes copies the list of blocks, which are total bytes together.
func (t *thinner) sizes(h, total uint64) error {
	if err := t.put64(h); err != nil {
		return err
	}
	for n := 0; total > 0; n++ {
		name := t.name()
		size := t.u64()
		if t.err != nil || n == maxBlocks || size == 0 || size > total {
			return errStream("its list of blocks is wrong")
		}
		total -= size
		if err := errors.Join(t.putName(name), t.put64(size)); err != nil {
			return err
		}
	}
	return nil
}

// page copies a page, or drops it.
func (t *thinner) page(offset, flags uint64) error {
	if flags&flagContinue == 0 {
		t.block = t.name()
	}
	n := pageSize
	if flags&flagZero != 0 {
		n = 1 // the byte that fills it
	}
	content := t.take(n)
	if t.err != nil || t.block == "" {
		return errStream("a page is cut short")
	}
	if drop, err := t.drop(offset, content); err != nil || drop {
		return err
	}
	t.pages++
	flags &^= flagContinue
	if t.wrote == t.block {
		flags |= flagContinue
	}
	if err := t.put64(offset | flags); err != nil {
		return err
	}
	if t.wrote != t.block {
		if err := t.putName(t.block); err != nil {
			return err
		}
		t.wrote = t.block
	}
	_, err := t.w.Write(content)
	return err
}

// drop reports whether the machine that loads the page has it already.
func (t *thinner) drop(offset uint64, content []byte) (bool, error) {
	switch strings.TrimPrefix(t.block, "/objects/") {
	case windowBlock:
		return true, nil
	case ramBlock:
	default:
		return false, nil
	}
	if len(content) == 1 {
		content = bytes.Repeat(content, pageSize)
	}
	var have [pageSize]byte
	if _, err := t.base.ReadAt(have[:], int64(offset)); err != nil {
		return false, outcome.Default(outcome.HostLacks, fmt.Errorf("read the template's memory: %w", err))
	}
	return bytes.Equal(have[:], content), nil
}

// next copies what is between two sections, and reports false when all else was copied,
// too, because no section of RAM follows.
func (t *thinner) next(id uint32) (more bool, err error) {
	b := t.take(1)
	if t.err == nil && b[0] == sectionFooter {
		foot := append([]byte{b[0]}, t.take(4)...)
		if _, err := t.w.Write(foot); err != nil {
			return false, err
		}
		b = t.take(1)
	}
	if t.err != nil {
		return false, errStream("it ends after a section of RAM")
	}
	kind := b[0]
	if err := t.w.WriteByte(kind); err != nil {
		return false, err
	}
	if kind == sectionPart || kind == sectionEnd {
		b := t.take(4)
		if t.err != nil {
			return false, errStream("it ends in a section's header")
		}
		if _, err := t.w.Write(b); err != nil {
			return false, err
		}
		if binary.BigEndian.Uint32(b) == id {
			return true, nil
		}
	}
	rest, err := bounded.ReadAll(t.r, maxDevices)
	if err != nil {
		return false, outcome.Default(outcome.HostLacks, fmt.Errorf("read the devices' state: %w", err))
	}
	if err := pause(rest); err != nil {
		return false, err
	}
	_, err = t.w.Write(rest)
	return false, err
}

// pause has a machine that is loaded stand still, whatever it stood still for: a QEMU
// that loads a machine which a debugger has stopped aborts ("invalid runstate
// transition: 'inmigrate' -> 'debug'", 7.2). The state is in a section of its own
// (QEMU: migration/global_state.c): its name, instance and version, the length of the
// text with its NUL, and a buffer for it.
func pause(devices []byte) error {
	const section, paused = "\x0bglobalstate\x00\x00\x00\x00\x00\x00\x00\x01", "paused\x00"
	_, state, ok := bytes.Cut(devices, []byte(section))
	if !ok || len(state) < 4+runstateBytes {
		return errStream("it does not say whether the machine runs")
	}
	binary.BigEndian.PutUint32(state, uint32(len(paused)))
	clear(state[4 : 4+runstateBytes])
	copy(state[4:], paused)
	return nil
}

// runstateBytes is the size of the buffer.
const runstateBytes = 100

// take reads n bytes, which are its own.
func (t *thinner) take(n int) []byte {
	b := make([]byte, n)
	if t.err == nil {
		_, t.err = io.ReadFull(t.r, b)
	}
	return b
}

func (t *thinner) u64() uint64 { return binary.BigEndian.Uint64(t.take(8)) }

func (t *thinner) name() string { return string(t.take(int(t.take(1)[0]))) }

func (t *thinner) put64(v uint64) error {
	_, err := t.w.Write(binary.BigEndian.AppendUint64(nil, v))
	return err
}

func (t *thinner) putName(name string) error {
	_, err := t.w.Write(append([]byte{byte(len(name))}, name...))
	return err
}
