package kern

import (
	"encoding/binary"
	"fmt"

	"labctl/host/kernel"
	"labctl/host/outcome"
	"labctl/host/outside/mmu"
)

// Anchor is where a kernel is: what address randomisation and the boot loader chose. All
// machines that start from one template have the same.
type Anchor struct {
	Phys   uint64 `json:"phys"`   // guest-physical address of the image's first byte
	Slide  uint64 `json:"slide"`  // what is added to link addresses
	Root   uint64 `json:"root"`   // guest-physical address of the kernel's page tables
	Format string `json:"format"` // of the page tables: a name of mmu.Formats
	// InitTask is the address of the first CPU's idle task, at which the list of tasks
	// starts; 0 if it is not known.
	InitTask uint64 `json:"init_task,omitempty"`
}

var errNotFound = outcome.New(outcome.BadInput,
	"it is not found in the guest's memory: it has not started yet, or the guest runs another kernel")

// roots are the kernel's own page tables by their names on the architectures.
var roots = []string{"swapper_pg_dir", "init_top_pgt", "init_level4_pgt"}

// Steps at which a kernel's image may start: architectures align it to 2 MB, or put it at
// a distance from there that is that of its link address.
const (
	bigStep   = 2 << 20
	smallStep = 32 << 10
)

// find searches the guest's memory for the kernel's banner and then for the page tables
// that map it. Neither needs registers, so that it works for any machine at any time.
func (k *Kernel) find() error {
	text, ok1 := k.link(kernel.TextSymbol)
	banner, ok2 := k.link(kernel.BannerSymbol)
	if !ok1 || !ok2 {
		return outcome.Inputf("its symbols and its image do not tell where its banner is")
	}
	tried := map[uint64]bool{}
	for _, c := range []struct{ from, step uint64 }{
		{text % bigStep, bigStep},
		{0, bigStep},
		{0, smallStep},
	} {
		for _, r := range k.regions {
			start := (r.Base+c.step-1)/c.step*c.step + c.from
			for phys := start; phys >= r.Base && phys-r.Base < r.Size; phys += c.step {
				if tried[phys] || !k.bannerAt(phys+banner-text) {
					continue
				}
				tried[phys] = true
				if k.mapped(phys, text) {
					return nil
				}
			}
		}
	}
	return errNotFound
}

func (k *Kernel) link(name string) (uint64, bool) {
	found := k.syms.Named(name)
	if len(found) == 0 {
		return 0, false
	}
	return found[0].Addr, true
}

// bannerAt reports whether the kernel's banner is at a guest-physical address.
func (k *Kernel) bannerAt(phys uint64) bool {
	want := "Linux version " + k.Image.Release + " ("
	got := make([]byte, len(want))
	return mmu.Read(k.phys, got, phys) == nil && string(got) == want
}

// mapped finds the page tables of a kernel whose image is at a guest-physical address.
func (k *Kernel) mapped(phys, text uint64) bool {
	for _, name := range roots {
		if link, ok := k.link(name); ok && k.mappedBy(phys, text, phys+link-text) {
			return true
		}
	}
	if k.bits == 32 {
		// They are just below the text (arch/arm/kernel/head.S, PG_DIR_SIZE).
		return k.mappedBy(phys, text, phys-0x4000) || k.mappedBy(phys, text, phys-0x5000)
	}
	// A kernel without symbols of data: they are in its image, before what is freed
	// after the boot (arch/arm64/kernel/vmlinux.lds.S).
	init, ok := k.link("_sinittext")
	if !ok || init < text {
		return false
	}
	const near = 1 << 20
	page := make([]byte, 4096)
	for off := uint64(0); off < near && off < init-text; {
		off += uint64(len(page))
		root := phys + init - text - off
		if mmu.Read(k.phys, page, root) == nil && k.looksLikeRoot(page) && k.mappedBy(phys, text, root) {
			return true
		}
	}
	return false
}

// looksLikeRoot reports whether a page may be the first one of page tables of arm64: its
// few entries point to tables in memory.
func (k *Kernel) looksLikeRoot(page []byte) bool {
	const maxEntries = 64
	n := 0
	for at := 0; at < len(page); at += 8 {
		e := binary.LittleEndian.Uint64(page[at:])
		if e == 0 {
			continue
		}
		if n++; e&3 != 3 || n > maxEntries || !k.isMemory(e&0x0000fffffffff000) {
			return false
		}
	}
	return n > 0
}

func (k *Kernel) isMemory(phys uint64) bool {
	for _, r := range k.regions {
		if phys >= r.Base && phys-r.Base < r.Size {
			return true
		}
	}
	return false
}

// mappedBy tries a root with all formats of the architecture. What is before _stext need
// not be executable (map_kernel in arch/arm64).
func (k *Kernel) mappedBy(phys, text, root uint64) bool {
	code, ok := k.link("_stext")
	if !ok || code < text {
		code = text
	}
	for _, f := range mmu.Of(k.Image.Arch) {
		if !k.hasFormat(f) {
			continue
		}
		t := mmu.Table{Format: f, Root: root}
		at := []uint64{code}
		if k.bits == 64 {
			at = t.Executable(k.phys, phys+code-text)
		}
		for _, va := range at {
			// It may be negative: of a flat image the link address is assumed, and that of
			// 6.1 on arm64 is below. The banner must be there, too.
			slide := va - code
			if slide%smallStep != 0 {
				continue
			}
			if k.settle(Anchor{Phys: phys, Slide: slide, Root: root, Format: f.Name}) {
				return true
			}
		}
	}
	return false
}

// hasFormat reports whether the kernel may have page tables of a format, by its
// configuration: by another, some tables can be read as well, and seem to fit. One that
// was built for addresses of 52 bits has those of 48 on a CPU without them, of 47 with pages
// of 16 KB (VA_BITS_MIN in arch/arm64/include/asm/memory.h).
func (k *Kernel) hasFormat(f *mmu.Format) bool {
	option, ok := map[uint64]string{4 << 10: "ARM64_4K_PAGES", 16 << 10: "ARM64_16K_PAGES", 64 << 10: "ARM64_64K_PAGES"}[f.Page()]
	if !ok || k.Image.Arch != "arm64" || !k.Image.HasConfig() {
		return true
	}
	if _, on := k.Image.Option(option); !on {
		return false
	}
	bits, ok := k.Image.Option("ARM64_VA_BITS")
	least := uint(48)
	if f.Page() == 16<<10 {
		least = 47
	}
	return !ok || bits == fmt.Sprint(f.VABits()) || bits == "52" && f.VABits() == least
}

// settle takes an anchor if the kernel's banner is where it says, by physical and by
// virtual addresses.
func (k *Kernel) settle(a Anchor) bool {
	text, _ := k.link(kernel.TextSymbol)
	banner, _ := k.link(kernel.BannerSymbol)
	f := mmu.Find(a.Format)
	if f == nil || f.Arch != k.Image.Arch || !k.bannerAt(a.Phys+banner-text) {
		return false
	}
	t := mmu.Table{Format: f, Root: a.Root, Kernel: true}
	code, ok := k.link("_stext")
	if !ok {
		code = text
	}
	for _, link := range []uint64{code, banner} {
		w, err := t.Walk(k.phys, link+a.Slide)
		if err != nil || w.Phys != a.Phys+link-text {
			return false
		}
	}
	k.anchor, k.table = a, t
	if at, ok := k.Addr("init_task"); ok {
		k.anchor.InitTask = at
	} else if !k.isInitTask(a.InitTask) {
		k.anchor.InitTask = k.findInitTask()
	}
	return true
}
