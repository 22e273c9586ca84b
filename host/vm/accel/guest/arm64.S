// The trial guest for arm64: it uses the features of a CPU that a kernel needs,
// in the order of a boot. It is the firmware of QEMU's machine "virt", runs
// from flash at 0 in EL1 and reports on the PL011, one letter per step:
//
//	R  the first instruction runs
//	M  system registers as a kernel sets them
//	L  the MMU with a translation table
//	E  exceptions, a fault fixed up by its handler, EL0 and back
//	V  SIMD, exclusives, and the atomics that ID_AA64ISAR0_EL1 promises
//	S  20 million rounds of a loop in EL1
//	T  ten expiries of the virtual timer
//	X  end, by PSCI SYSTEM_OFF
//
// "?" is a wrong result, "!" an unexpected exception. Interrupts
// are left out: they need a driver for each version of the GIC.
//
// Sources: Arm ARM (DDI 0487), chapters D1, D5, D8; Arm DEN 0022 (PSCI);
// QEMU's hw/arm/virt.c for the addresses.
//
//	llvm-mc -triple=aarch64 -filetype=obj -o arm64.o arm64.S
//	llvm-objcopy -O binary arm64.o arm64.bin

	.set UART, 0x09000000
	.set RAM, 0x40000000
	.set L1, RAM + 0x10000
	.set L2, RAM + 0x11000
	.set STACK, RAM + 0x20000
	.set MARK, RAM + 0x30000
	.set HIGH, 0x80000000		// third GiB: not mapped

	.macro say c
	mov w9, #\c
	str w9, [x28]
	.endm

	.globl _start
	.text
_start:
	mov x28, #UART
	mov w9, #0x301			// UARTEN, TXE, RXE
	str w9, [x28, #0x30]
	say 'R'

	// M
	mrs x0, midr_el1
	mrs x0, id_aa64pfr0_el1
	mrs x0, id_aa64mmfr0_el1
	mrs x0, ctr_el0
	mrs x27, cntfrq_el0
	cbz x27, bad
	mov x0, #0x1234
	msr tpidr_el1, x0
	msr contextidr_el1, x0
	mrs x1, tpidr_el1
	cmp x0, x1
	b.ne bad
	mov x0, #(3 << 20)		// FPEN
	msr cpacr_el1, x0
	adr x0, vectors
	msr vbar_el1, x0
	isb
	say 'M'

	// L: flash normal and read-only, devices, RAM; walks uncached, since the
	// table is written with the caches off.
	ldr x0, =L1
	mov x1, #1024
1:	str xzr, [x0], #8
	subs x1, x1, #1
	b.ne 1b
	ldr x0, =L1
	ldr x1, =L2 + 3
	str x1, [x0]
	ldr x1, =RAM + 0x705 + (1 << 54)	// block: AF, inner shareable, index 1, UXN
	str x1, [x0, #8]
	ldr x0, =L2
	ldr x1, =0x7c5			// and EL0 may read: AP 3, as writable memory is no code for EL1
	mov x2, #64
1:	str x1, [x0], #8
	add x1, x1, #0x200000
	subs x2, x2, #1
	b.ne 1b
	ldr x1, =0x08000000 + 0x401 + (3 << 53)	// block: AF, index 0, never executed
	mov x2, #448
1:	str x1, [x0], #8
	add x1, x1, #0x200000
	subs x2, x2, #1
	b.ne 1b
	ldr x0, =0xff00			// 0: device nGnRnE, 1: normal write-back
	msr mair_el1, x0
	ldr x0, =(1 << 23) | (3 << 12) | 25	// EPD1, SH0, T0SZ
	msr tcr_el1, x0
	ldr x0, =L1
	msr ttbr0_el1, x0
	dsb sy
	tlbi vmalle1
	ic iallu
	dsb sy
	isb
	mrs x0, sctlr_el1
	mov x1, #0x1005			// I, C, M
	orr x0, x0, x1
	msr sctlr_el1, x0
	isb
	ldr x0, =STACK
	mov sp, x0
	say 'L'

	// E: x20 counts brk and svc of EL1, x21 faults, x22 svc of EL0
	mov x20, #0
	mov x21, #0
	mov x22, #0
	brk #1
	svc #0
	cmp x20, #2
	b.ne bad
	ldr x0, =MARK
	mov x1, #0x5a5a
	str x1, [x0]
	ldr x2, =HIGH + 0x30000
	ldr x3, [x2]
	cmp x3, x1
	b.ne bad
	cmp x21, #1
	b.ne bad
	adr x0, user
	msr elr_el1, x0
	mov x0, #0x3c0			// EL0t, interrupts masked
	msr spsr_el1, x0
	mov x19, #1000
	eret
user:
1:	svc #0
	subs x19, x19, #1
	b.ne 1b
	svc #1
back:
	cmp x22, #1001
	b.ne bad
	say 'E'

	// V
	movi v0.4s, #21
	add v0.4s, v0.4s, v0.4s
	umov w0, v0.s[2]
	cmp w0, #42
	b.ne bad
	ldr x0, =MARK
	str xzr, [x0]
	mov x3, #1000
1:	ldaxr x1, [x0]
	add x1, x1, #1
	stlxr w2, x1, [x0]
	cbnz w2, 1b
	subs x3, x3, #1
	b.ne 1b
	ldr x1, [x0]
	cmp x1, #1000
	b.ne bad
	mrs x1, id_aa64isar0_el1
	ubfx x1, x1, #20, #4
	cbz x1, 1f
	.arch_extension lse
	mov x1, #1
	ldaddal x1, x2, [x0]
	cmp x2, #1000
	b.ne bad
1:	say 'V'

	// S
	ldr x0, =MARK
	ldr x1, =20000000
1:	ldr x2, [x0]
	add x2, x2, x1
	str x2, [x0]
	subs x1, x1, #1
	b.ne 1b
	say 'S'

	// T
	mov x0, #1000
	udiv x1, x27, x0		// a millisecond
	mov x2, #10
1:	msr cntv_tval_el0, x1
	mov x3, #3			// enabled, masked
	msr cntv_ctl_el0, x3
	isb
2:	mrs x3, cntv_ctl_el0
	tbz x3, #2, 2b
	subs x2, x2, #1
	b.ne 1b
	msr cntv_ctl_el0, xzr
	say 'T'
	say 'X'
off:
	ldr x0, =0x84000008
	hvc #0
1:	b 1b

bad:
	say '?'
	b off

sync_el1:
	mrs x10, esr_el1
	lsr x11, x10, #26
	cmp x11, #0x3c			// BRK: returns to itself
	b.eq 1f
	cmp x11, #0x15			// SVC: returns behind itself
	b.eq 2f
	cmp x11, #0x25			// data abort
	b.ne unexpected
	mrs x10, far_el1
	ldr x11, =HIGH + 0x30000
	cmp x10, x11
	b.ne unexpected
	ldr x10, =L1
	ldr x11, [x10, #8]
	str x11, [x10, #16]
	dc civac, x10			// walks are uncached
	dsb sy
	isb
	add x21, x21, #1
	eret
1:	mrs x10, elr_el1
	add x10, x10, #4
	msr elr_el1, x10
2:	add x20, x20, #1
	eret

sync_el0:
	mrs x10, esr_el1
	lsr x11, x10, #26
	cmp x11, #0x15
	b.ne unexpected
	add x22, x22, #1
	tst x10, #1			// svc #1: done
	b.ne back
	eret

unexpected:
	say '!'
	b off

	.balign 2048
vectors:
	.rept 4
	b unexpected
	.balign 128
	.endr
	b sync_el1
	.balign 128
	.rept 3
	b unexpected
	.balign 128
	.endr
	b sync_el0
	.balign 128
	.rept 7
	b unexpected
	.balign 128
	.endr
	.ltorg
