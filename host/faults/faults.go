// Package faults makes kernel modules with faults in them, for tests of what a kernel
// reports. A module is assembled here, without a compiler or the kernel's headers: what
// it has to share with the kernel (the layout of struct module, the version magic and
// the checksums of symbols) is taken from a module of the same kernel, the donor.
//
// Loading the module by finit_module(2) is the fault: it happens in the task that
// loads it. The kernel's functions that it calls are undefined symbols without a
// checksum, which kernels refuse: the loader has to replace them by their addresses in
// /proc/kallsyms first, as Loader does.
package faults

import (
	"bytes"
	"debug/elf"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Fault is something that a module does when it is loaded.
type Fault string

const (
	Warn     Fault = "warn"     // refcount_warn_saturate: a WARNING, once for each boot
	Oops     Fault = "oops"     // reads at address 0x10
	Lockup   Fault = "lockup"   // keeps the CPU for 8 s, where the kernel is not preemptible
	Spin     Fault = "spin"     // makes a kernel thread, labspin, that never gives up its CPU
	Deadlock Fault = "deadlock" // locks rtnl_mutex twice
	IPI      Fault = "ipi"      // panics in an interrupt of CPU 1
)

// PanicText is what an IPI's panic says.
const PanicText = "labfault in an interrupt"

// All lists the faults.
var All = []Fault{Warn, Oops, Lockup, Spin, Deadlock, IPI}

// Module is the name of the module; Function is that of the function in it that is at
// fault, below init_module.
const Module = "labfault"

// Function is the name of the function that is at fault.
func (f Fault) Function() string { return "fault_" + string(f) }

// Donor is a module that all of Debian's kernels have, without dependencies.
const Donor = "dummy"

//go:embed loader/main.go
var loader string

// WriteProgram writes the source of a program that loads the module, for the
// architectures of modules, to a directory: it is built as labctl builds programs, and
// by labs. Its load function is there for tests, too.
func WriteProgram(dir string, modules map[string][]byte) error {
	files := map[string]string{"go.mod": "module fault\n\ngo 1.26\n", "main.go": loader}
	for arch, m := range modules {
		files["module_"+arch+".go"] = fmt.Sprintf("package main\n\nfunc init() { module = []byte(%q) }\n", m)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// code is the code of a function, with its relocations.
type code struct {
	hex    string
	relocs []reloc
	unwind uint32 // arm: what .ARM.exidx says of it
}

type reloc struct {
	at     uint64
	kind   uint32
	symbol string
	addend int64 // of ELF64; ELF32 has it in the code
}

// machine is an architecture: all that is returned is -ECANCELED, so that the module
// does not stay.
type machine struct {
	arch   elf.Machine
	init   func(function string) code // init_module: calls function
	faults map[Fault]code
	word   uint32 // relocation of a pointer in data
}

const bss = ".bss"

func amd64Call(at uint64, symbol string) reloc {
	return reloc{at, uint32(elf.R_X86_64_PLT32), symbol, -4}
}

func arm64Call(at uint64, symbol string) reloc {
	return reloc{at, uint32(elf.R_AARCH64_CALL26), symbol, 0}
}

func armCall(at uint64, symbol string) reloc { return reloc{at, uint32(elf.R_ARM_CALL), symbol, 0} }

// armPop is the unwinding of a function that begins with push {r4, lr}, armNone of one
// that pushes nothing (Exception Handling ABI for the Arm Architecture).
const (
	armPop  = 0x80a8b0b0
	armNone = 0x80b0b0b0
)

var machines = []machine{
	{
		arch: elf.EM_X86_64, word: uint32(elf.R_X86_64_64),
		init: func(f string) code {
			return code{hex: "55" + // push %rbp
				"4889e5" + // mov %rsp, %rbp
				"e800000000" + // call f
				"5d" + // pop %rbp
				"c3", // ret
				relocs: []reloc{amd64Call(5, f)}}
		},
		faults: map[Fault]code{
			Warn: {hex: "55" + "4889e5" +
				"be03000000" + // mov $3, %esi: REFCOUNT_SUB_UAF
				"48c7c700000000" + // mov $bss, %rdi
				"e800000000" + // call refcount_warn_saturate
				"b883ffffff" + // mov $-125, %eax
				"5d" + "c3",
				relocs: []reloc{{12, uint32(elf.R_X86_64_32S), bss, 0}, amd64Call(17, "refcount_warn_saturate")}},
			Oops: {hex: "55" + "4889e5" +
				"8b042510000000" + // mov 0x10, %eax
				"5d" + "c3"},
			Lockup: {hex: "55" + "4889e5" + "53" + "51" + // push %rbx, %rcx
				"e800000000" + "488d5808" + // call ktime_get_seconds; lea 8(%rax), %rbx
				"e800000000" + "4839d8" + "7cf6" + // 1: call ktime_get_seconds; cmp %rbx, %rax; jl 1b
				"59" + "5b" + "b883ffffff" + "5d" + "c3",
				relocs: []reloc{amd64Call(7, "ktime_get_seconds"), amd64Call(16, "ktime_get_seconds")}},
			Spin: {hex: "55" + "4889e5" +
				"488d3d21000000" + // lea spin(%rip), %rdi
				"31f6" + "83caff" + // xor %esi, %esi; or $-1, %edx
				"488d0d19000000" + // lea name(%rip), %rcx
				"31c0" + "e800000000" + // xor %eax, %eax; call kthread_create_on_node
				"4889c7" + "e800000000" + // mov %rax, %rdi; call wake_up_process
				"31c0" + "5d" + "c3" + // xor %eax, %eax: the module stays
				"90" + "90" + "f390" + "ebfc" + // spin: pause; jmp spin
				hex.EncodeToString([]byte("labspin\x00")),
				relocs: []reloc{amd64Call(26, "kthread_create_on_node"), amd64Call(34, "wake_up_process")}},
			Deadlock: {hex: "55" + "4889e5" + "e800000000" + "e800000000" + "b883ffffff" + "5d" + "c3",
				relocs: []reloc{amd64Call(5, "rtnl_lock"), amd64Call(10, "rtnl_lock")}},
			IPI: {hex: "55" + "4889e5" +
				"bf01000000" + // mov $1, %edi: the CPU
				"48c7c600000000" + // mov $panic, %rsi
				"488d1511000000" + // lea text(%rip), %rdx
				"b901000000" + "e800000000" + // mov $1, %ecx: wait; call smp_call_function_single
				"b883ffffff" + "5d" + "c3" +
				hex.EncodeToString([]byte(PanicText+"\x00")),
				relocs: []reloc{{12, uint32(elf.R_X86_64_32S), "panic", 0}, amd64Call(29, "smp_call_function_single")}},
		},
	},
	{
		arch: elf.EM_AARCH64, word: uint32(elf.R_AARCH64_ABS64),
		init: func(f string) code {
			return code{hex: "fd7bbfa9" + // stp x29, x30, [sp, #-16]!
				"fd030091" + // mov x29, sp
				"00000094" + // bl f
				"fd7bc1a8" + // ldp x29, x30, [sp], #16
				"c0035fd6", // ret
				relocs: []reloc{arm64Call(8, f)}}
		},
		faults: map[Fault]code{
			Warn: {hex: "fd7bbfa9" + "fd030091" +
				"61008052" + // mov w1, #3: REFCOUNT_SUB_UAF
				"00000090" + "00000091" + // adrp x0, bss; add x0, x0, :lo12:bss
				"00000094" + // bl refcount_warn_saturate
				"800f8012" + // mov w0, #-125
				"fd7bc1a8" + "c0035fd6",
				relocs: append(arm64Address(12, 0), arm64Call(20, "refcount_warn_saturate"))},
			Oops: {hex: "fd7bbfa9" + "fd030091" +
				"000280d2" + "000040b9" + // mov x0, #16; ldr w0, [x0]
				"fd7bc1a8" + "c0035fd6"},
			Lockup: {hex: "fd7bbea9" + "fd030091" + "f35301a9" + // stp x29, x30, [sp, #-32]!; mov x29, sp; stp x19, x20, [sp, #16]
				"00000094" + "14200091" + // bl ktime_get_seconds; add x20, x0, #8
				"00000094" + "1f0014eb" + "cbffff54" + // 1: bl ktime_get_seconds; cmp x0, x20; b.lt 1b
				"f35341a9" + "800f8012" + "fd7bc2a8" + "c0035fd6",
				relocs: []reloc{arm64Call(12, "ktime_get_seconds"), arm64Call(20, "ktime_get_seconds")}},
			Spin: {hex: "fd7bbfa9" + "fd030091" +
				"40010010" + // adr x0, spin (40 bytes on)
				"010080d2" + "02008012" + // mov x1, #0; mov w2, #-1
				"23010010" + // adr x3, name (36 bytes on)
				"00000094" + "00000094" + // bl kthread_create_on_node; bl wake_up_process
				"00008052" + // mov w0, #0: the module stays
				"fd7bc1a8" + "c0035fd6" +
				"1f2003d5" + // nop
				"3f2003d5" + "ffffff17" + // spin: yield; b spin
				hex.EncodeToString([]byte("labspin\x00")),
				relocs: []reloc{arm64Call(24, "kthread_create_on_node"), arm64Call(28, "wake_up_process")}},
			Deadlock: {hex: "fd7bbfa9" + "fd030091" + "00000094" + "00000094" + "800f8012" + "fd7bc1a8" + "c0035fd6",
				relocs: []reloc{arm64Call(8, "rtnl_lock"), arm64Call(12, "rtnl_lock")}},
			IPI: {hex: "fd7bbfa9" + "fd030091" +
				"20008052" + // mov w0, #1: the CPU
				"01000090" + "21000091" + // adrp x1, panic; add x1, x1, :lo12:panic
				"c2000010" + // adr x2, text (24 bytes on)
				"23008052" + "00000094" + // mov w3, #1: wait; bl smp_call_function_single
				"800f8012" + "fd7bc1a8" + "c0035fd6" +
				hex.EncodeToString([]byte(PanicText+"\x00")),
				relocs: []reloc{
					{12, uint32(elf.R_AARCH64_ADR_PREL_PG_HI21), "panic", 0}, {16, uint32(elf.R_AARCH64_ADD_ABS_LO12_NC), "panic", 0},
					arm64Call(28, "smp_call_function_single"),
				}},
		},
	},
	{
		arch: elf.EM_ARM, word: uint32(elf.R_ARM_ABS32),
		init: func(f string) code {
			return code{hex: "10402de9" + // push {r4, lr}
				"feffffeb" + // bl f
				"1080bde8", // pop {r4, pc}
				relocs: []reloc{armCall(4, f)}, unwind: armPop}
		},
		faults: map[Fault]code{
			Warn: {hex: "10402de9" + "10009fe5" + // ldr r0, =bss
				"0310a0e3" + // mov r1, #3: REFCOUNT_SUB_UAF
				"feffffeb" + // bl refcount_warn_saturate
				"7c00e0e3" + // mvn r0, #124
				"1080bde8" + "00000000" + "00000000",
				relocs: []reloc{armCall(12, "refcount_warn_saturate"), {28, uint32(elf.R_ARM_ABS32), bss, 0}}, unwind: armPop},
			Oops: {hex: "0030a0e3" + "100093e5" + "1eff2fe1", // mov r3, #0; ldr r0, [r3, #16]; bx lr
				unwind: armNone},
			Lockup: {hex: "10402de9" +
				"feffffeb" + "084080e2" + // bl ktime_get_seconds; add r4, r0, #8
				"feffffeb" + "000054e1" + "fcffffca" + // 1: bl ktime_get_seconds; cmp r4, r0; bgt 1b
				"7c00e0e3" + "1080bde8",
				relocs: []reloc{armCall(4, "ktime_get_seconds"), armCall(12, "ktime_get_seconds")}, unwind: armPop},
			Spin: {hex: "10402de9" +
				"18008fe2" + // add r0, pc, #24: spin
				"0010a0e3" + "0020e0e3" + // mov r1, #0; mvn r2, #0
				"14308fe2" + // add r3, pc, #20: name
				"feffffeb" + "feffffeb" + // bl kthread_create_on_node; bl wake_up_process
				"0000a0e3" + "1080bde8" + // mov r0, #0: the module stays
				"01f020e3" + "fdffffea" + // spin: yield; b spin
				hex.EncodeToString([]byte("labspin\x00")),
				relocs: []reloc{armCall(20, "kthread_create_on_node"), armCall(24, "wake_up_process")}, unwind: armPop},
			Deadlock: {hex: "10402de9" + "feffffeb" + "feffffeb" + "7c00e0e3" + "1080bde8",
				relocs: []reloc{armCall(4, "rtnl_lock"), armCall(8, "rtnl_lock")}, unwind: armPop},
			IPI: {hex: "10402de9" +
				"0100a0e3" + "10109fe5" + // mov r0, #1: the CPU; ldr r1, =panic
				"10208fe2" + "0130a0e3" + // add r2, pc, #16: text; mov r3, #1: wait
				"feffffeb" + "7c00e0e3" + "1080bde8" + // bl smp_call_function_single
				"00000000" +
				hex.EncodeToString([]byte(PanicText+"\x00")),
				relocs: []reloc{armCall(20, "smp_call_function_single"), {32, uint32(elf.R_ARM_ABS32), "panic", 0}}, unwind: armPop},
		},
	},
}

// arm64Address is an adrp and the add after it.
func arm64Address(at uint64, offset int64) []reloc {
	return []reloc{
		{at, uint32(elf.R_AARCH64_ADR_PREL_PG_HI21), bss, offset},
		{at + 4, uint32(elf.R_AARCH64_ADD_ABS_LO12_NC), bss, offset},
	}
}

// Build makes a module with a fault for the kernel that donor is of. Donor is the
// decompressed object of a module that is called donorName.
func Build(donor []byte, donorName string, fault Fault) ([]byte, error) {
	f, err := elf.NewFile(bytes.NewReader(donor))
	if err != nil {
		return nil, fmt.Errorf("module %s: read ELF: %w", donorName, err)
	}
	i := slices.IndexFunc(machines, func(m machine) bool { return m.arch == f.Machine })
	if i < 0 {
		return nil, fmt.Errorf("module %s: no faults for %v", donorName, f.Machine)
	}
	m := machines[i]
	at, ok := m.faults[fault]
	if !ok {
		return nil, fmt.Errorf("fault %q is not known", fault)
	}
	b := &builder{f: f, class: f.Class}
	if err := b.build(m, donorName, fault, at); err != nil {
		return nil, fmt.Errorf("module %s: %w", donorName, err)
	}
	return b.bytes(), nil
}

// section is a section of the module that is built.
type section struct {
	name   string
	kind   elf.SectionType
	flags  elf.SectionFlag
	data   []byte
	size   uint64 // if there is no data
	link   uint32
	info   uint32
	align  uint64
	entry  uint64
	nameAt uint32
	offset uint64
}

type symbol struct {
	name    string
	section uint16
	value   uint64
	size    uint64
	kind    elf.SymType
	bind    elf.SymBind
}

var le = binary.LittleEndian // as all of machines are

type builder struct {
	f        *elf.File
	class    elf.Class
	sections []section
	symbols  []symbol
}

// Indices of sections, as build adds them.
const (
	textIndex = 1
	bssIndex  = 2
	thisIndex = 3
)

func (b *builder) build(m machine, donorName string, fault Fault, at code) error {
	this, initAt, err := b.this(donorName)
	if err != nil {
		return err
	}
	info, err := b.info(donorName)
	if err != nil {
		return err
	}
	var text []byte
	var relocs, unwind []reloc
	var index []byte
	add := func(name string, c code) error {
		raw, err := hex.DecodeString(c.hex)
		if err != nil {
			return fmt.Errorf("code of %s: %w", name, err)
		}
		start := uint64(len(text))
		b.symbols = append(b.symbols, symbol{name: name, section: textIndex, value: start, size: uint64(len(raw)), kind: elf.STT_FUNC, bind: elf.STB_GLOBAL})
		for _, r := range c.relocs {
			r.at += start
			relocs = append(relocs, r)
		}
		if c.unwind != 0 {
			unwind = append(unwind, reloc{at: uint64(len(index)), kind: uint32(elf.R_ARM_PREL31), symbol: name})
			index = le.AppendUint32(index, 0)
			index = le.AppendUint32(index, c.unwind)
		}
		text = append(text, raw...)
		for len(text)%16 != 0 {
			text = append(text, 0)
		}
		return nil
	}
	b.symbols = []symbol{{}, {name: bss, section: bssIndex, kind: elf.STT_OBJECT}}
	if err := errors.Join(add(fault.Function(), at), add("init_module", m.init(fault.Function()))); err != nil {
		return err
	}
	b.sections = []section{
		{},
		{name: ".text", kind: elf.SHT_PROGBITS, flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR, data: text, align: 16},
		{name: ".bss", kind: elf.SHT_NOBITS, flags: elf.SHF_ALLOC | elf.SHF_WRITE, size: 64, align: 16},
		{name: thisModule, kind: elf.SHT_PROGBITS, flags: elf.SHF_ALLOC | elf.SHF_WRITE, data: this, align: 64},
		{name: ".modinfo", kind: elf.SHT_PROGBITS, flags: elf.SHF_ALLOC, data: info, align: 1},
	}
	// Where there are checksums of symbols the kernel compares that of struct module;
	// where there are places for jumps to far functions it insists on them.
	for _, name := range []string{"__versions", ".plt", ".init.plt", ".text.ftrace_trampoline", ".init.text.ftrace_trampoline"} {
		if s := b.f.Section(name); s != nil {
			data, err := s.Data()
			if err != nil {
				return err
			}
			b.sections = append(b.sections, section{name: name, kind: elf.SHT_PROGBITS, flags: s.Flags, data: data, align: max(1, s.Addralign)})
		}
	}
	b.relocate(".text", textIndex, relocs)
	b.relocate(thisModule, thisIndex, []reloc{{at: initAt, kind: m.word, symbol: "init_module"}})
	if len(index) > 0 {
		b.sections = append(b.sections, section{name: ".ARM.exidx", kind: 0x70000001, flags: elf.SHF_ALLOC | elf.SHF_LINK_ORDER, data: index, link: textIndex, align: 4})
		b.relocate(".ARM.exidx", uint32(len(b.sections)-1), unwind)
	}
	b.table()
	return nil
}

const thisModule = ".gnu.linkonce.this_module"

// this is the donor's struct module under our name, and where the pointer to
// init_module is in it.
func (b *builder) this(donorName string) (data []byte, initAt uint64, err error) {
	i := slices.IndexFunc(b.f.Sections, func(s *elf.Section) bool { return s.Name == thisModule })
	if i < 0 {
		return nil, 0, errors.New("no struct module in it")
	}
	if data, err = b.f.Sections[i].Data(); err != nil {
		return nil, 0, err
	}
	data = bytes.Clone(data)
	at := bytes.Index(data, append([]byte(donorName), 0))
	if at < 0 {
		return nil, 0, errors.New("struct module does not have its name")
	}
	clear(data[at : at+len(donorName)])
	copy(data[at:], Module)
	symbols, err := b.f.Symbols()
	if err != nil {
		return nil, 0, err
	}
	for _, s := range b.f.Sections {
		if s.Type != elf.SHT_RELA && s.Type != elf.SHT_REL || int(s.Info) != i {
			continue
		}
		raw, err := s.Data()
		if err != nil {
			return nil, 0, err
		}
		for ; uint64(len(raw)) >= s.Entsize && s.Entsize >= 8; raw = raw[s.Entsize:] {
			var at, symbol uint64
			if b.class == elf.ELFCLASS64 {
				at, symbol = le.Uint64(raw), le.Uint64(raw[8:])>>32
			} else {
				at, symbol = uint64(le.Uint32(raw)), uint64(le.Uint32(raw[4:])>>8)
			}
			if symbol > 0 && symbol <= uint64(len(symbols)) && symbols[symbol-1].Name == "init_module" {
				return data, at, nil
			}
		}
	}
	return nil, 0, errors.New("nothing in struct module points to init_module")
}

// info is the donor's .modinfo, as far as the kernel acts on it, under our name.
func (b *builder) info(donorName string) ([]byte, error) {
	s := b.f.Section(".modinfo")
	if s == nil {
		return nil, errors.New("no .modinfo section")
	}
	data, err := s.Data()
	if err != nil {
		return nil, err
	}
	var out []byte
	for kv := range strings.SplitSeq(string(data), "\x00") {
		switch key, value, _ := strings.Cut(kv, "="); key {
		case "name":
			if value != donorName {
				return nil, fmt.Errorf(".modinfo calls it %s", value)
			}
			out = append(out, "name="+Module+"\x00"...)
		case "vermagic", "license", "retpoline", "intree":
			out = append(out, kv+"\x00"...)
		}
	}
	return append(out, "depends=\x00"...), nil
}

// relocate adds the relocations of a section. Symbols that are not defined are the
// kernel's.
func (b *builder) relocate(name string, of uint32, relocs []reloc) {
	var data []byte
	for _, r := range relocs {
		i := slices.IndexFunc(b.symbols, func(s symbol) bool { return s.name == r.symbol })
		if i < 0 {
			i = len(b.symbols)
			b.symbols = append(b.symbols, symbol{name: r.symbol, bind: elf.STB_GLOBAL})
		}
		if b.class == elf.ELFCLASS64 {
			data = le.AppendUint64(data, r.at)
			data = le.AppendUint64(data, uint64(i)<<32|uint64(r.kind))
			data = le.AppendUint64(data, uint64(r.addend))
		} else {
			data = le.AppendUint32(data, uint32(r.at))
			data = le.AppendUint32(data, uint32(i)<<8|r.kind)
		}
	}
	s := section{name: ".rela" + name, kind: elf.SHT_RELA, flags: elf.SHF_INFO_LINK, data: data, info: of, align: 8, entry: 24}
	if b.class == elf.ELFCLASS32 {
		s.name, s.kind, s.align, s.entry = ".rel"+name, elf.SHT_REL, 4, 8
	}
	b.sections = append(b.sections, s)
}

// table adds the tables of symbols and names, which relocations refer to.
func (b *builder) table() {
	names, table := []byte{0}, []byte(nil)
	for _, s := range b.symbols {
		at := uint32(0)
		if s.name != "" {
			at = uint32(len(names))
			names = append(names, s.name+"\x00"...)
		}
		info := elf.ST_INFO(s.bind, s.kind)
		if b.class == elf.ELFCLASS64 {
			table = le.AppendUint32(table, at)
			table = append(table, info, 0)
			table = le.AppendUint16(table, s.section)
			table = le.AppendUint64(table, s.value)
			table = le.AppendUint64(table, s.size)
		} else {
			table = le.AppendUint32(table, at)
			table = le.AppendUint32(table, uint32(s.value))
			table = le.AppendUint32(table, uint32(s.size))
			table = append(table, info, 0)
			table = le.AppendUint16(table, s.section)
		}
	}
	symtab := uint32(len(b.sections))
	for i := range b.sections {
		if s := &b.sections[i]; s.kind == elf.SHT_RELA || s.kind == elf.SHT_REL {
			s.link = symtab
		}
	}
	entry := uint64(24)
	if b.class == elf.ELFCLASS32 {
		entry = 16
	}
	b.sections = append(b.sections,
		section{name: ".symtab", kind: elf.SHT_SYMTAB, data: table, link: symtab + 1, info: 2, align: 8, entry: entry},
		section{name: ".strtab", kind: elf.SHT_STRTAB, data: names, align: 1})
	all := []byte{0}
	b.sections = append(b.sections, section{name: ".shstrtab", kind: elf.SHT_STRTAB, align: 1})
	for i := range b.sections[1:] {
		s := &b.sections[i+1]
		s.nameAt = uint32(len(all))
		all = append(all, s.name+"\x00"...)
	}
	b.sections[len(b.sections)-1].data = all
}

// bytes lays the sections out.
func (b *builder) bytes() []byte {
	head, each := 64, 64
	if b.class == elf.ELFCLASS32 {
		head, each = 52, 40
	}
	out := make([]byte, head)
	pad := func(align uint64) {
		for align > 1 && uint64(len(out))%align != 0 {
			out = append(out, 0)
		}
	}
	for i := range b.sections[1:] {
		s := &b.sections[i+1]
		pad(s.align)
		s.offset = uint64(len(out))
		out = append(out, s.data...)
	}
	pad(8)
	table := uint64(len(out))
	for _, s := range b.sections {
		size := max(s.size, uint64(len(s.data)))
		out = le.AppendUint32(out, s.nameAt)
		out = le.AppendUint32(out, uint32(s.kind))
		for _, v := range []uint64{uint64(s.flags), 0, s.offset, size} {
			out = b.word(out, v)
		}
		out = le.AppendUint32(out, s.link)
		out = le.AppendUint32(out, s.info)
		out = b.word(out, s.align)
		out = b.word(out, s.entry)
	}
	h := append([]byte("\x7fELF"), byte(b.class), byte(b.f.Data), byte(elf.EV_CURRENT), 0, 0, 0, 0, 0, 0, 0, 0, 0)
	h = le.AppendUint16(h, uint16(elf.ET_REL))
	h = le.AppendUint16(h, uint16(b.f.Machine))
	h = le.AppendUint32(h, uint32(elf.EV_CURRENT))
	h = b.word(b.word(b.word(h, 0), 0), table)
	flags := uint32(0)
	if b.f.Machine == elf.EM_ARM {
		flags = 0x05000000 // EF_ARM_EABI_VER5
	}
	h = le.AppendUint32(h, flags)
	for _, v := range []int{head, 0, 0, each, len(b.sections), len(b.sections) - 1} {
		h = le.AppendUint16(h, uint16(v))
	}
	copy(out, h)
	return out
}

// word is an address or an offset.
func (b *builder) word(out []byte, v uint64) []byte {
	if b.class == elf.ELFCLASS64 {
		return le.AppendUint64(out, v)
	}
	return le.AppendUint32(out, uint32(v))
}
