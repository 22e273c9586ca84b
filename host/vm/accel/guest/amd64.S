# The trial guest for amd64: it uses the features of a CPU that a kernel needs, in the
# order of a boot. It is the machine's firmware, runs from the reset vector and reports
# on the first UART, one letter per step:
#
#	R  real mode runs
#	L  long mode with paging
#	C  CPUID 1000 times
#	M  model-specific registers as a kernel sets them
#	E  exceptions, page faults, address-space switches, ring 3 and back
#	V  vector and bit-manipulation instructions that CPUID promises
#	S  20 million rounds of a loop in ring 0
#	T  ten interrupts of the local APIC's timer, each out of HLT
#	X  end, by writing 0x2a to port 0xf4
#
# An unexpected exception prints "!" and the vector as a letter from "@", and ends with
# 0x7f.
#
# Sources: Intel SDM volume 3, chapters 4 to 11; AMD APM volume 2.
#
# Padding is explicit (int3), since assemblers differ in the no-ops they choose, also
# for a fill of 0x90.
#
#	as --64 -o amd64.o amd64.S
#	ld -Ttext=0xf0000 --oformat=binary -o amd64.bin amd64.o

	.intel_syntax noprefix
	.set BASE, 0xf0000	# where the firmware appears below 1 MiB
	.set GDT, 0x1000	# guest-physical addresses from here on
	.set IDT, 0x2000
	.set TSS, 0x3000
	.set COUNTS, 0x4000	# of taken: int3, ud2, page faults, timer
	.set MARK, 0x5000
	.set STACK, 0x8000
	.set USTACK, 0x9000
	.set FPU, 0xa000	# save area, 64-byte aligned
	.set PML4, 0x10000
	.set APIC, 0xfee00000
	.set HIGH, 0x8000000000	# second entry of the PML4: not mapped

	.macro say c
	mov dx, 0x3f8
	mov al, \c
	out dx, al
	.endm

	.globl _start
	.text
	.code16
_start:
	cli
	cld
	say 'R'
	lgdtd cs:[gdtr - BASE]
	mov eax, cr0
	and eax, 0x9fffffff	# caches on
	or eax, 1
	mov cr0, eax
	.byte 0x66, 0xea	# ljmp 0x18:protected
	.long protected
	.word 0x18

	.code32
protected:
	mov eax, 0x10
	mov ds, eax
	mov es, eax
	mov ss, eax
	mov esp, STACK
	# 4 GiB identity-mapped by 2 MiB pages, open to ring 3.
	mov edi, PML4
	xor eax, eax
	mov ecx, 6 * 1024
	rep stosd
	mov dword ptr [PML4], PML4 + 0x1000 + 7
	mov edi, PML4 + 0x1000
	mov eax, PML4 + 0x2000 + 7
	mov ecx, 4
1:	mov [edi], eax
	add eax, 0x1000
	add edi, 8
	loop 1b
	mov edi, PML4 + 0x2000
	mov eax, 0x87
	mov ecx, 2048
2:	cmp eax, 0xc0000000	# devices: uncached
	jb 3f
	or eax, 0x10
3:	mov [edi], eax
	add eax, 0x200000
	add edi, 8
	loop 2b
	mov eax, 0x620		# PAE, OSFXSR, OSXMMEXCPT
	mov cr4, eax
	mov eax, PML4
	mov cr3, eax
	mov ecx, 0xc0000080	# EFER: LME, SCE
	rdmsr
	or eax, 0x101
	wrmsr
	mov eax, cr0
	and eax, 0xfffffff3	# no EM, no TS
	or eax, 0x80010023	# PG, WP, NE, MP, PE
	mov cr0, eax
	ljmp 0x08:long

	.code64
long:
	mov rsp, STACK
	say 'L'

	# C
	mov r15d, 1000
1:	xor eax, eax
	cpuid
	mov r14d, eax		# highest leaf
	mov eax, 1
	xor ecx, ecx
	cpuid
	mov r12d, ecx		# features
	xor r13d, r13d
	cmp r14d, 7
	jb 2f
	mov eax, 7
	xor ecx, ecx
	cpuid
	mov r13d, ebx		# more features
2:	dec r15d
	jnz 1b
	say 'C'

	# M
	mov ecx, 0x10		# TSC
	rdmsr
	mov ecx, 0x1b		# APIC_BASE
	rdmsr
	mov ecx, 0xfe		# MTRRcap
	rdmsr
	mov ecx, 0x277		# PAT, as Linux has it
	mov eax, 0x00070106
	mov edx, 0x00070106
	wrmsr
	mov ecx, 0xc0000081	# STAR
	xor eax, eax
	mov edx, 0x00180008
	wrmsr
	mov ecx, 0xc0000084	# SFMASK
	mov eax, 0x47700
	xor edx, edx
	wrmsr
	mov ecx, 0xc0000082	# LSTAR
	lea rax, [rip + syscall_entry]
	xor edx, edx
	wrmsr
	rdmsr
	lea rbx, [rip + syscall_entry]
	cmp eax, ebx
	jne bad
	mov ecx, 0xc0000101	# GS_BASE and KERNEL_GS_BASE change places
	mov eax, 0x1111
	xor edx, edx
	wrmsr
	mov ecx, 0xc0000102
	mov eax, 0x2222
	wrmsr
	swapgs
	rdmsr
	cmp eax, 0x1111
	jne bad
	say 'M'

	# E
	mov rdi, GDT		# in RAM: LTR marks its descriptor
	lea rsi, [rip + gdt]
	mov ecx, gdt_end - gdt
	rep movsb
	lgdt [rip + gdtr_ram]
	mov rdi, TSS
	xor eax, eax
	mov ecx, 0x68
	rep stosb
	mov qword ptr [TSS + 4], STACK
	mov word ptr [TSS + 0x66], 0x68
	mov rdi, COUNTS
	mov ecx, 32
	rep stosb
	mov eax, 0x30
	ltr ax
	mov r8, IDT
	lea r9, [rip + traps]
	mov ecx, 0x41
1:	mov rax, r9
	mov [r8], ax
	mov word ptr [r8 + 2], 0x08
	mov word ptr [r8 + 4], 0xee00	# interrupt gate, open to ring 3
	shr rax, 16
	mov [r8 + 6], ax
	mov qword ptr [r8 + 8], 0
	add r8, 16
	add r9, 16
	loop 1b
	lidt [rip + idtr]
	int3
	ud2
	mov rbx, HIGH + MARK
	mov qword ptr [MARK], 0x5a5a
	cmp qword ptr [rbx], 0x5a5a	# fault, mapped by the handler
	jne bad
	mov qword ptr [PML4 + 8], 0
	invlpg [rbx]
	cmp qword ptr [rbx], 0x5a5a	# once more
	jne bad
	mov ecx, 1000
1:	mov rax, cr3
	mov cr3, rax
	loop 1b
	mov ebx, 1000
	lea rcx, [rip + user]
	mov r11d, 2
	mov rbp, rsp
	mov rsp, USTACK
	sysretq
user:
	int3			# by the TSS
1:	mov eax, 0
	syscall
	dec ebx
	jnz 1b
	mov eax, 1
	syscall
back:
	mov rsp, rbp
	cmp dword ptr [COUNTS], 2
	jne bad
	cmp dword ptr [COUNTS + 4], 1
	jne bad
	cmp dword ptr [COUNTS + 8], 2
	jne bad
	say 'E'

	# V
	movdqa xmm0, [rip + vector]
	paddd xmm0, xmm0
	movd eax, xmm0
	cmp eax, 2
	jne bad
	fxsave64 [FPU]
	fxrstor64 [FPU]
	bt r12d, 13		# CMPXCHG16B
	jnc 1f
	xor eax, eax
	xor edx, edx
	mov qword ptr [MARK], 0
	mov qword ptr [MARK + 8], 0
	mov ebx, 3
	xor ecx, ecx
	lock cmpxchg16b [MARK]
	jnz bad
1:	bt r12d, 23		# POPCNT
	jnc 1f
	mov eax, 0xff
	popcnt eax, eax
	cmp eax, 8
	jne bad
1:	bt r13d, 8		# BMI2: used by the kernel's own unpacker
	jnc 1f
	mov eax, 3
	mov ecx, 4
	shlx rax, rax, rcx
	cmp eax, 48
	jne bad
1:	bt r13d, 9		# ERMS
	jnc 1f
	mov rsi, MARK
	mov rdi, MARK + 64
	mov ecx, 64
	rep movsb
1:	bt r12d, 26		# XSAVE
	jnc 1f
	mov rax, cr4
	or eax, 0x40000
	mov cr4, rax
	xor ecx, ecx
	xgetbv
	or eax, 3
	bt r12d, 28		# AVX
	jnc 2f
	or eax, 4
2:	xsetbv
	mov rdi, FPU		# the header must be zero
	xor eax, eax
	mov ecx, 0x1000
	rep stosb
	mov eax, 7
	xor edx, edx
	xsave64 [FPU]
	xrstor64 [FPU]
	bt r12d, 28
	jnc 1f
	vpaddd xmm1, xmm0, xmm0
	vmovd eax, xmm1
	cmp eax, 4
	jne bad
	vzeroupper
1:	say 'V'

	# S
	mov ecx, 20000000
	xor eax, eax
1:	add [MARK], rax
	inc rax
	dec ecx
	jnz 1b
	say 'S'

	# T
	mov ebx, APIC
	mov dword ptr [rbx + 0xf0], 0x1ff	# on
	mov dword ptr [rbx + 0x3e0], 0xb	# divide by 1
	mov dword ptr [rbx + 0x320], 0x20040	# periodic, vector 0x40
	mov dword ptr [rbx + 0x380], 1000000
1:	sti
	hlt
	cli
	cmp dword ptr [COUNTS + 12], 10
	jb 1b
	mov dword ptr [rbx + 0x320], 0x10000
	say 'T'

	say 'X'
	mov al, 0x2a
	out 0xf4, al
1:	hlt
	jmp 1b

bad:
	say '?'
	mov al, 0x7e
	out 0xf4, al
1:	hlt
	jmp 1b

syscall_entry:
	test eax, eax
	jnz back
	sysretq

	# One entry of 16 bytes per vector.
	.balign 16, 0xcc
traps:
	.set vector_number, 0
	.rept 0x41
	.balign 16, 0xcc
	.if vector_number == 3
	inc dword ptr [COUNTS]
	iretq
	.elseif vector_number == 6
	jmp undefined
	.elseif vector_number == 14
	jmp page_fault
	.elseif vector_number == 0x40
	jmp timer
	.else
	.byte 0xb3, 0x40 + vector_number	# mov bl, imm8
	jmp unexpected
	.endif
	.set vector_number, vector_number + 1
	.endr
	.balign 16, 0xcc

undefined:
	inc dword ptr [COUNTS + 4]
	add qword ptr [rsp], 2
	cmp dword ptr [COUNTS + 4], 1
	ja 1f
	iretq
1:	mov bl, 0x40 + 6		# one was asked for
	jmp unexpected

page_fault:
	push rax
	push rbx
	mov rax, cr2
	mov rbx, HIGH + MARK
	cmp rax, rbx
	mov bl, 0x40 + 14
	jne unexpected
	inc dword ptr [COUNTS + 8]
	mov rax, [PML4]
	mov [PML4 + 8], rax
	pop rbx
	pop rax
	add rsp, 8		# the error code
	iretq

timer:
	inc dword ptr [COUNTS + 12]
	push rax
	mov eax, APIC
	mov dword ptr [rax + 0xb0], 0	# EOI
	pop rax
	iretq

unexpected:
	say '!'
	mov al, bl
	out dx, al
	mov al, 0x7f
	out 0xf4, al
1:	hlt
	jmp 1b

	.balign 16, 0xcc
vector:
	.long 1, 2, 3, 4
gdt:				# accessed already: the CPU cannot mark it in ROM
	.quad 0
	.quad 0x00af9b000000ffff	# 08 kernel code
	.quad 0x00cf93000000ffff	# 10 data
	.quad 0x00cf9b000000ffff	# 18 32-bit code
	.quad 0x00cff3000000ffff	# 20 user data
	.quad 0x00affb000000ffff	# 28 user code
	.quad 0x0000890000000067 + (TSS << 16), 0	# 30 TSS
gdt_end:
gdtr:
	.word gdt_end - gdt - 1
	.long gdt
	.balign 8, 0
gdtr_ram:
	.word gdt_end - gdt - 1
	.quad GDT
idtr:
	.word 0x41 * 16 - 1
	.quad IDT
